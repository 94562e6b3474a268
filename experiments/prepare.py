"""Runs `diffjax prepare`; see `diffjax prepare --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["prepare", *sys.argv[1:]])
