"""Studies of one question each, rerun by `agentbalance study`."""
