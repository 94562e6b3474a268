"""Runs `diffjax evaluate`; see `diffjax evaluate --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["evaluate", *sys.argv[1:]])
