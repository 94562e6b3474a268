"""Runs `diffjax evaluate`; see `diffjax evaluate --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
