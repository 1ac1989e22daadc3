"""Libraries that come with an extra, loaded when they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType


def require(module: str, extra: str) -> ModuleType:
    """Import `module`, or raise an ImportError that names the extra which installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"this needs {module!r}, which comes with an extra: "
            f"pip install 'agentbalance-plugin[{extra}]'"
        ) from error
