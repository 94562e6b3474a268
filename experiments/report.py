"""Runs `diffjax report`; see `diffjax report --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["report", *sys.argv[1:]])
