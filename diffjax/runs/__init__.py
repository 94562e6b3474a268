"""Runs: checks configs, builds the objects that they describe, trains, and loads trained networks (`Run`).

`config` holds the schema, `resolve` completes and checks a config, `build` makes objects of its sections, `train` is
the training loop, and `load` reads a workdir.
"""

from diffjax.runs.run import Run, load

__all__ = ["Run", "load"]
