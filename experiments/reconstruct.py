"""How exactly a trained model encodes and decodes images: DDIM's Table 2.

python experiments/reconstruct.py --workdir runs/digits

Real images go along the probability-flow ODE to noise and back, S steps each way, without clipping. Prints the mean
squared error in [0, 1] by S, and writes it to `WORKDIR/reconstruction.json`, with `reconstruction.png`: eight images
above what comes back at each S.
"""

import argparse
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from diffjax import latents, launch, viz
from diffjax.errors import UserError
from diffjax.tasks import generation
from diffjax.training import setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, encodes and decodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written")
    parser.add_argument("--num", type=int, default=200, help="how many images")
    parser.add_argument("--steps", type=int, nargs="+", default=[10, 20, 50, 100, 200, 500, 1000])
    args = parser.parse_args()
    launch.start()
    try:
        errors = reconstruct(Path(args.workdir), num=args.num, steps=args.steps)
    except UserError as error:
        sys.exit(f"error: {error}")
    print("| S | mean squared error |\n|---|---|")
    for count, error in errors.items():
        print(f"| {count} | {error:.2e} |")


def reconstruct(workdir: Path, *, num: int, steps: list[int]) -> dict[int, float]:
    """Mean squared error in [0, 1] by number of steps, on the first `num` images held out, or else trained on.

    Raises:
      UserError: a workdir that is none, or numbers out of range.
    """
    config = setup.load_config(workdir)
    experiment = setup.experiment(config)
    total = experiment.schedule.num_timesteps
    if any(not 1 <= count <= total for count in steps):
        raise UserError(f"--steps {' '.join(map(str, steps))}: allowed is 1 … {total} (config.schedule.num_timesteps)")
    trained_on, held_out, prepare = setup.images(config)
    source = held_out if len(held_out) else trained_on
    if not 8 <= num <= len(source):
        raise UserError(f"--num={num}: allowed is 8 … {len(source)}, the images there are")
    x = generation.normalize(jnp.stack([prepare(source[n]["image"]) for n in range(num)]))
    with Checkpoints(workdir) as checkpoints:
        _, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)
    labels = [source[n]["label"] for n in range(num)]
    condition = {} if experiment.model.num_classes is None else {"label": jnp.array(labels, jnp.int32)}
    predict = setup.predictor(experiment, params, **condition)

    errors, rows = {}, [np.asarray(x[:8])]
    for count in steps:
        back = latents.reconstruct(experiment.schedule, predict, x, num_steps=count, progress=f"S = {count}")
        errors[count] = float(jnp.mean(((back - x) / 2) ** 2))
        rows.append(np.asarray(back[:8]))
    (workdir / "reconstruction.json").write_text(json.dumps({"num": num, "mse": errors}, indent=2) + "\n")
    viz.save_png(workdir / "reconstruction.png", viz.grid(viz.to_uint8(np.concatenate(rows)), columns=8, tile=48))
    return errors


if __name__ == "__main__":
    main()
