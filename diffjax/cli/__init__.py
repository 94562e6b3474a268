"""The command line: `diffjax COMMAND`, one module per command."""
