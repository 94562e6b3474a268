"""Runs `diffjax likelihood`; see `diffjax likelihood --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["likelihood", *sys.argv[1:]]))
