"""Runs `diffjax ablate`; see `diffjax ablate --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["ablate", *sys.argv[1:]])
