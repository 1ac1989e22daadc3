"""The `agentbalance` command."""
