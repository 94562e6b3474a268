"""Reports: what there is of a training run, or of a sweep, on one HTML page that needs nothing else."""

from diffjax.report.sweeps import of_sweep
from diffjax.report.workdirs import of_workdir

__all__ = ["of_sweep", "of_workdir"]
