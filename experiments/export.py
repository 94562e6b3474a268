"""Writes a trained workdir's network as a folder that diffusers loads.

python experiments/export.py --workdir runs/digits --out digits

    pipeline = diffusers.DDPMPipeline.from_pretrained("digits")  # or DDIMPipeline
"""

import argparse
from pathlib import Path

from diffjax import interop, launch
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, reads, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written")
    parser.add_argument("--out", required=True, type=Path, help="the folder to write; must be new or empty")
    parser.add_argument("--raw", action="store_true", help="the parameters themselves, not their EMA")
    args = parser.parse_args()
    with launch.reporting():
        launch.start()
        config = run_config.load(args.workdir)
        experiment = setup.experiment(config)
        with Checkpoints(args.workdir) as checkpoints:
            decay = None if args.raw else experiment.ema_decay
            _, params = checkpoints.restore_params(experiment.params_shape, ema=decay)
        # The grid and the clipping that this library samples with; DDPM's variance as sample.py has it, but diffusers
        # takes a network that predicts one for no other.
        variance = "learned_range" if experiment.learns_variance else config.sample.variance or "fixed_small"
        settings = interop.Settings(target=experiment.target, variance=variance, grid=config.sample.grid)
        print(
            interop.export(
                args.out,
                experiment.model,
                params,
                experiment.schedule,
                image_size=experiment.image_shape[:2],
                settings=settings,
            )
        )


if __name__ == "__main__":
    main()
