"""Helpers of the kinds of sweeps that train: the config of all cells, its checks, and the run of a cell."""

from pathlib import Path

import ml_collections

from diffjax.errors import UserError
from diffjax.runs import build, config_files, resolve
from diffjax.runs.run import Run, load_part
from diffjax.runs.train import train
from diffjax.tasks.base import InitialPart, Task
from diffjax.training.step import all_devices


def common_config(base: str, fields: dict | None) -> ml_collections.ConfigDict:
    """Returns the resolved config that the cells of a training sweep start from."""
    try:
        found = config_files.load(base)
    except UserError as error:
        raise UserError(f"config.base: {str(error).removeprefix('--config=')}") from error
    return resolve.override(resolve.resolve(found), resolve.flatten(fields or {}))


def checked_task(config: ml_collections.ConfigDict) -> Task:
    """Returns the task of a config, after checking what `train` checks."""
    task = build.task(config)
    build.sampling(config, task)
    build.training(config, task, len(all_devices()))
    return task


def check_end(part: InitialPart) -> None:
    """Checks that a teacher is trained to its end, which it may not be where several processes share a sweep."""
    teacher = load_part(part)
    if teacher.step < (steps := teacher.config.train.steps):
        raise UserError(f"{part.field}: {part.path} is at step {teacher.step}; train it to {steps} first")


def run(config: ml_collections.ConfigDict, workdir: Path) -> Run:
    """Trains a config to its end, or resumes it, and returns the run with its first average."""
    state = train(config, workdir)
    if (step := int(state.step)) < config.train.steps:
        raise KeyboardInterrupt  # by a signal; the same sweep resumes from there
    decay = config.train.ema_decays[0]
    return Run(config, build.task(config), state.ema_params[decay], step, decay, str(workdir))
