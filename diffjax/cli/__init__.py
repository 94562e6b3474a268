"""The command line: `diffjax COMMAND`, one module a command."""
