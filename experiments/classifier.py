"""Runs `diffjax classifier`; see `diffjax classifier --help`."""

import sys

from diffjax.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["classifier", *sys.argv[1:]]))
