"""Runs `diffjax sample`; see `diffjax sample --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["sample", *sys.argv[1:]])
