"""Runs `diffjax train`; see `diffjax train --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
