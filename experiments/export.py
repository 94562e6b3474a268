"""Runs `diffjax export`; see `diffjax export --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["export", *sys.argv[1:]])
