"""Trains the experiment of a config, then samples from it.

python experiments/train.py --config configs/digits.py --workdir runs/digits [--config.train.steps=2000 …]

The same command again goes on from the last checkpoint, after an end of any kind.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from absl import app, flags
from ml_collections import config_flags

from diffjax import launch, viz
from diffjax.errors import writing
from diffjax.tasks import generation
from diffjax.training import restoration, setup
from diffjax.training.flags import parse_flags
from diffjax.training.loop import train

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment; --config.x=y sets a field.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and pictures.")
PROFILE = flags.DEFINE_bool("profile", False, "Write a trace of a few steps to WORKDIR/profile.")
DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes that JAX finds: TPU pod, SLURM, ….")
COORDINATOR = flags.DEFINE_string("coordinator", None, "Elsewhere: HOST:PORT of process 0.")
NUM_PROCESSES = flags.DEFINE_integer("num-processes", None, "Elsewhere: how many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process-id", None, "Elsewhere: which one this is, from 0.")


def main(argv: list[str]) -> None:
    """Trains and samples."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    with launch.reporting():
        config, workdir = CONFIG.value, WORKDIR.value
        launch.start(
            distributed=DISTRIBUTED.value,
            coordinator=COORDINATOR.value,
            num_processes=NUM_PROCESSES.value,
            process_id=PROCESS_ID.value,
            batch_size=config.train.batch_size // max(1, config.train.accumulate),
        )
        state = train(config, workdir, profile=PROFILE.value)
        if jax.process_index() != 0:
            return
        if (step := int(state.step)) < config.train.steps:
            print(f"stopped after step {step}, which is saved; the same command goes on from there")
            return
        experiment = setup.experiment(config)
        params = jax.device_get(state.ema_params[experiment.ema_decay])
        if experiment.task is not None:
            training = setup.training(config, experiment.image_shape, jax.device_count())
            picture = restoration.picture(experiment, params, restoration.examples(config, training))
            with writing(workdir):
                print(viz.save_png(Path(workdir) / "restored.png", picture))
            return
        classes = experiment.model.num_classes
        with writing(workdir):
            paths = generation.write_pictures(
                experiment.schedule,
                setup.sample_predictor(experiment, params, np.arange(generation.grid_size(classes))),
                experiment.image_shape,
                workdir,
                num_classes=classes,
                variance="learned_range" if experiment.learns_variance else "fixed_small",
            )
        print(*paths, sep="\n")


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # configs import one another
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
