"""Runs `diffjax ablate`; see `diffjax ablate --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ablate", *sys.argv[1:]]))
