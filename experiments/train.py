"""Runs `diffjax train`; see `diffjax train --help`."""

import sys

from diffjax_main import entry_point

if __name__ == "__main__":
    entry_point(["train", *sys.argv[1:]])
