"""Names under which LangChain's integrations take what calls of chat models have in common."""

from __future__ import annotations

SHAPES = (
    "response_format",
    "format",
    "response_schema",
    "response_json_schema",
    "response_mime_type",
    "output_config",
)
"""Where integrations of several providers put the schema, or the kind, of structured output."""

SAMPLING = ("temperature", "top_p", "top_k", "seed", "presence_penalty", "frequency_penalty")
"""How a model draws its tokens."""

SETTINGS = (*SAMPLING, "reasoning_effort")
"""What models of several providers have as a field."""
