"""Runs `diffjax likelihood`; see `diffjax likelihood --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["likelihood", *sys.argv[1:]])
