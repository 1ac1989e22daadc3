"""What the chunks of a reply report that LangChain streams inside `invoke`, for those who read the
graph's messages: of the message that it gives, usage is their sum, whatever each of them meant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import merge_configs, var_child_runnable_config

from agentbalance_plugin.runtime.usage import reported


class Chunks(BaseCallbackHandler):
    """Listens to one call of a chat model, but not to those of others inside it.

    `reports` is what `reports_in` finds in its chunks; empty where nothing is streamed.
    """

    # Beside the event loop they might come out of order.
    run_inline = True

    def __init__(self) -> None:
        self.reports: list[tuple[int, int]] = []
        self._call: UUID | None = None

    def heard_in(
        self, config: RunnableConfig | None, model: BaseChatModel, options: Mapping[str, Any]
    ) -> RunnableConfig | None:
        """The config of a call of `model` with these keyword arguments, which this listens to if it
        may be streamed: listening to any other would be tens of microseconds for nothing."""
        around = var_child_runnable_config.get() or {}
        callbacks = (config or {}).get("callbacks") or around.get("callbacks")
        others = getattr(callbacks, "handlers", callbacks)
        if not (others or vars(model).get("streaming") or options.get("stream")):
            return config
        return merge_configs(ensure_config(config), {"callbacks": [self]})

    def on_chat_model_start(self, *args: Any, run_id: UUID, **more: Any) -> None:
        if self._call is None:
            self._call = run_id

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **more: Any) -> None:
        if run_id == self._call:
            self.reports += reports_in(getattr(chunk, "message", None))


def reports_in(message: BaseMessage | None) -> list[tuple[int, int]]:
    """(prompt tokens, output tokens) that a message, or a chunk of one, says it used; or none."""
    usage: Any = getattr(message, "usage_metadata", None)
    names = ("input_tokens", "output_tokens", "total_tokens")
    return [reported(*(usage.get(name) for name in names))] if usage else []
