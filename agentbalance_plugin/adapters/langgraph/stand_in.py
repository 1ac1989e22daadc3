"""A chat model that stands where a backbone is going to be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from typing_extensions import override

from agentbalance_plugin.adapters.langgraph.run import bound_to, caller_of


class StandIn(BaseChatModel):
    """Takes the place of a chat model, or of a raw SDK call, in a node of a balanced graph.

    Tools and structured output bound to it fit whatever backbone the plan gives the node.

    Args:
        default: what answers outside balanced graphs; without one a call there is an error.
    """

    default: BaseChatModel | None = None

    @property
    @override
    def _llm_type(self) -> str:
        return "agentbalance"

    def here(self) -> StandIn:
        """A copy that belongs to the node it is asked for in, whatever thread it is called from.

        For threads of your own, which know nothing of the graph.

        Raises:
            RuntimeError: not inside a balanced graph.
        """
        caller = caller_of(None)
        if caller is None:
            raise RuntimeError("StandIn.here() belongs inside a node of a balanced graph")
        return bound_to(self.model_copy(), caller)

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        made = [convert_to_openai_tool(tool) for tool in tools]
        return self.bind(tools=made, **chosen, **kwargs)

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self.default is None:
            raise RuntimeError(
                "a StandIn without a default was called outside of a balanced graph; pass "
                "StandIn(default=...) or run the graph that balance(...) makes"
            )
        model: Any = self.default
        tools = kwargs.pop("tools", None)
        if tools:
            chosen = {k: kwargs.pop(k) for k in ("tool_choice",) if k in kwargs}
            model = model.bind_tools(tools, **chosen)
        reply = model.invoke(messages, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=reply)])
