"""Runs `diffjax restore`; see `diffjax restore --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["restore", *sys.argv[1:]])
