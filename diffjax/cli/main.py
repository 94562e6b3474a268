"""The console script `diffjax`: finds the command, parses its arguments, runs it."""

import argparse
import importlib
import sys
from collections.abc import Sequence

from diffjax.cli.interrupts import Interrupts

COMMANDS = {
    "train": "train the experiment of a config",
    "sample": "sample images from a trained run, or from weights made elsewhere",
    "evaluate": "measure samples, or images on disk, against real images",
    "likelihood": "measure bits/dim: the variational bound and the exact likelihood",
    "moments": "estimate what optimal variances and grids need to know of a network",
    "restore": "restore images, and measure how well",
    "ablate": "compute a sweep: a figure for every combination of options",
    "report": "make one HTML page of a run or of a sweep",
    "export": "write a trained network as a folder that diffusers loads",
    "classifier": "train a small classifier, whose features measure images",
    "compile-for": "compile an experiment for a TPU that need not be there: memory, work, least time",
    "prepare": "prepare an image data set of tensorflow-datasets",
}
"""Command → summary. Each has a module here (`module_of`), with `add_arguments(parser)`, `run(args)` and its help as
docstring."""

_KEPT = {
    "train": "checkpoints",
    "sample": "finished batches",
    "ablate": "finished cells and checkpoints",
    "prepare": "complete downloads",
}
"""Command → what it keeps when it is interrupted, so that the same command resumes."""

_STATUS = """exit status:
  0    done; for train also: stopped by a signal, with the state saved
  1    an error, described in one line
  2    wrong usage of the command line
  130  interrupted by SIGINT (Ctrl-C); 143: by SIGTERM. A second signal ends a command at once."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line, and returns its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0 if argv else 2
    if argv[0] == "--version":
        from diffjax import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        print(f"error: {argv[0]!r} is not a command; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return command(argv[0], argv[1:])


def module_of(name: str) -> str:
    """Returns the module of a command."""
    return f"diffjax.cli.{name.replace('-', '_')}"


def command(name: str, argv: Sequence[str]) -> int:
    """Runs one command, and returns its exit status."""
    from diffjax.cli import launch
    from diffjax.runs.config_files import add_working_folder

    module = importlib.import_module(module_of(name))
    parser = argparse.ArgumentParser(
        prog=f"diffjax {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    add_working_folder()
    with launch.reporting():
        return module.run(parser.parse_args(argv)) or 0


def entry_point(argv: Sequence[str] | None = None) -> None:
    """Runs the command line of this process and exits; the console script `diffjax`."""
    argv = list(sys.argv[1:] if argv is None else argv)
    kept = _KEPT.get(next(iter(argv), ""))
    after = (
        f"{kept} are kept, and the same command resumes"
        if kept
        else "nothing is kept, and the same command starts anew"
    )
    interrupts = Interrupts(f"interrupted: {after}")
    try:
        status = main(argv)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or interrupts.is_ending:
            interrupts.end()
        interrupts.leave()
        raise
    interrupts.leave()
    sys.exit(status)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return f"usage: diffjax COMMAND …\n\n{listed}\n\n`diffjax COMMAND --help` describes a command.\n\n{_STATUS}"


if __name__ == "__main__":
    entry_point()
