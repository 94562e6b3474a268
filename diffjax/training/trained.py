"""What a workdir holds once it is trained, and what another run begins with of it."""

import os
from typing import Any, NamedTuple

import ml_collections

from diffjax.errors import UserError
from diffjax.tasks.deblurring import Deblurring
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints

_NOT_LEARNED = ("parent", "name", "dropout", "dtype", "remat")
"""Fields of a UNet that parameters do not depend on."""


class Trained(NamedTuple):
    """A workdir."""

    config: ml_collections.ConfigDict
    experiment: setup.Experiment
    params: Any
    step: int


def load(workdir: str | os.PathLike) -> Trained:
    """A workdir's newest EMA parameters.

    Raises:
      UserError: no such workdir, or nothing in it that can be read.
    """
    config = run_config.load(workdir)
    experiment = setup.experiment(config)
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)
    return Trained(config, experiment, params, step)


def predictor(config: ml_collections.ConfigDict, experiment: setup.Experiment, workdir: str | os.PathLike) -> Any:
    """The parameters that a predictor begins training with: the first EMA of `config.task.predictor_workdir`.

    None: fresh ones, or those of the checkpoint in `workdir` that training goes on from.

    Raises:
      UserError: a workdir that holds no regression by the predictor's network; a frozen predictor without any.
    """
    task, field = experiment.task, "config.task.predictor_workdir"
    source = config.task.get("predictor_workdir") if "task" in config else None
    if source and not isinstance(task, Deblurring):
        raise UserError(f"{field}: {source!r} must be None: {config.task.name} has no predictor")
    if not isinstance(task, Deblurring) or _begun(workdir):
        return None
    if not source:
        if task.frozen:
            raise UserError(
                f"config.task.frozen: True needs {field}: a fresh predictor only gives back what it is given"
            )
        return None
    try:
        found = run_config.load(source)
        if (name := found.task.name if "task" in found else "generation") != "regression":
            raise UserError(f"{source} holds {name}; it must be a regression (its config.task.name)")
        other = setup.experiment(found)
        if different := _differences(other.model, task.predictor):
            raise UserError(f"the network of {source} is not the predictor: {different}")
        return load(source).params
    except UserError as error:
        raise UserError(f"{field}: {error}") from error


def _begun(workdir: str | os.PathLike) -> bool:
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step is not None


def _differences(found: Any, wanted: Any) -> str:
    """The fields of two UNets on which parameters depend, and the number of channels of their images."""
    fields = [name for name in type(wanted).__dataclass_fields__ if name not in _NOT_LEARNED]
    pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in fields}
    return ", ".join(f"{name}={has!r}, must be {must!r}" for name, (has, must) in pairs.items() if has != must)
