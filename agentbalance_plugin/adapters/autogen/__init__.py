"""AutoGen (autogen-agentchat) chats under a budget."""

from agentbalance_plugin.extras import require

require("autogen_agentchat", extra="autogen")

from agentbalance_plugin.adapters.autogen.endpoints import clients_for  # noqa: E402
from agentbalance_plugin.adapters.autogen.wrap import wrap_groupchat  # noqa: E402

__all__ = ["clients_for", "wrap_groupchat"]
