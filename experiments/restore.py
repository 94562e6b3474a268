"""Runs `diffjax restore`; see `diffjax restore --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["restore", *sys.argv[1:]]))
