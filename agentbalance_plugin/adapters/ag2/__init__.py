"""AG2 (0.14, imported as `autogen`) chats under a budget."""

from agentbalance_plugin.extras import require

require("autogen.agentchat.groupchat", extra="ag2")
require("openai", extra="ag2")

from agentbalance_plugin.adapters.ag2.wrap import wrap_groupchat  # noqa: E402

__all__ = ["wrap_groupchat"]
