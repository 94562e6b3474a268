"""Reports: a training run, or a sweep, on one HTML page that needs no other file."""

from diffjax.report.sweeps import of_sweep
from diffjax.report.workdirs import of_run

__all__ = ["of_run", "of_sweep"]
