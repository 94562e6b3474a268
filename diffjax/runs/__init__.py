"""Runs: from a config to objects, to a training, and to a trained network (`Run`).

`config` is the schema, `resolve` completes and checks a config, `build` makes objects of its sections, `train` is the
training loop, `load` reads a workdir.
"""

from diffjax.runs.run import Run, load

__all__ = ["Run", "load"]
