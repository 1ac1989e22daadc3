"""`python -m agentbalance_plugin`: the command line."""

from agentbalance_plugin.cli.main import main

if __name__ == "__main__":
    main()
