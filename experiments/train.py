"""Trains the experiment of a config, then samples from it.

python experiments/train.py --config configs/digits.py --workdir runs/digits [--config.train.steps=2000 …]

The same command again goes on from the last checkpoint.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import config_flags

from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import setup
from diffjax.training.flags import parse_flags
from diffjax.training.loop import train

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment; --config.x=y sets a field.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder for checkpoints, metrics and pictures.")


def main(argv: list[str]) -> None:
    """Trains and samples."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    logging.set_verbosity(logging.WARNING)  # orbax tells of every file
    try:
        state = train(CONFIG.value, WORKDIR.value)
        experiment = setup.experiment(CONFIG.value)
        params = jax.device_get(state.ema_params[experiment.ema_decay])
        predict = setup.predictor(
            experiment, params, **generation.labels(experiment.model, np.arange(generation.NUM_PICTURES))
        )
        variance = "learned_range" if experiment.learns_variance else "fixed_small"
        for path in generation.write_pictures(
            experiment.schedule, predict, experiment.image_shape, WORKDIR.value, variance=variance
        ):
            print(path)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # configs import one another
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
