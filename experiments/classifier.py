"""Runs `diffjax classifier`; see `diffjax classifier --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["classifier", *sys.argv[1:]])
