"""How many bits a dimension a trained model needs for images: the variational bound, and the exact likelihood.

python experiments/likelihood.py --workdir runs/digits --exact
python experiments/likelihood.py --workdir runs/fashion_mnist --exact --data images=x_test labels=y_test

Prints and writes `WORKDIR/likelihood.json`: figures as [mean, standard error over images], in bits/dim:
  protocol   which images, parameters, variance, clipping, dequantisation, tolerance
  bound      the variational bound, of which
  L_T        is the prior's part,
  L_0        the decoder's, and
  L_t        those of the timesteps 1 … T-1 (means alone); `eps_mse` is the squared error of ε̂ at 0 … T-1
  exact      with --exact: the probability flow's, dequantised (needs diffrax: the extra `likelihood`)
Draws for image n are of sample n of the seed, so figures do not depend on the batch size.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import launch, likelihood
from diffjax.errors import UserError, naming
from diffjax.evaluation import on_images
from diffjax.tasks import generation
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints
from diffjax.training.flags import assignment


def main() -> None:
    """Parses the command line, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="a folder that train.py has written")
    parser.add_argument("--num", type=int, help="how many images, the first ones (default: all)")
    parser.add_argument("--split", choices=("held_out", "train"), default="held_out")
    parser.add_argument(
        "--data", nargs="+", default=[], metavar="FIELD=VALUE", help="of config.data: other images, all of them"
    )
    parser.add_argument("--variance", choices=("fixed_small", "fixed_large", "learned_range"), help="of the bound")
    parser.add_argument("--no-clip", action="store_true", help="leave x̂0 unclipped in the bound")
    parser.add_argument("--exact", action="store_true", help="the probability flow's likelihood too")
    parser.add_argument(
        "--probes", type=int, default=1, help="of the divergence; 0: the trace itself, for small images"
    )
    parser.add_argument("--tolerance", type=float, default=1e-6, help="of the flow's solver, relative and absolute")
    parser.add_argument("--batch-size", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = vars(parser.parse_args())
    with launch.reporting():
        launch.start()
        workdir = Path(args.pop("workdir"))
        changes = dict(assignment("--data", text) for text in args.pop("data"))
        result = json.dumps(measure(workdir, changes=changes, clip=not args.pop("no_clip"), **args), indent=2)
        (workdir / "likelihood.json").write_text(result + "\n")
    print(result)


def measure(
    workdir: Path,
    *,
    num: int | None,
    split: str,
    changes: dict[str, Any],
    variance: str | None,
    clip: bool,
    exact: bool,
    probes: int,
    tolerance: float,
    batch_size: int,
    seed: int,
) -> dict:
    """The figures above.

    Raises:
      UserError: a workdir that is none, a variance that its network has not, numbers out of range, no diffrax.
    """
    config = run_config.load(workdir)
    experiment = setup.experiment(config)
    variance = variance or ("learned_range" if experiment.learns_variance else "fixed_small")
    setup.check_variance(variance, experiment.learns_variance, "--variance")
    if changes:
        with naming("--data"):
            changed = run_config.with_data(config, changes)
        source, _, prepare = setup.images(changed)
        split = ", ".join(f"{field}={value}" for field, value in changes.items())
    else:
        trained_on, held_out, prepare = setup.images(config)
        source = {"train": trained_on, "held_out": held_out}[split]
    if not len(source):
        raise UserError(
            "--split=held_out: config.data.holdout is 0, so no image is; --split=train has those trained on, and "
            "--data names others"
        )
    num = len(source) if num is None else num
    if not 2 <= num <= len(source):
        raise UserError(f"--num={num}: allowed is 2 … {len(source)}, the images there are")
    if probes < 0 or batch_size < 1 or not tolerance > 0:
        raise UserError(f"--probes={probes} must be ≥ 0, --batch-size={batch_size} ≥ 1 and --tolerance={tolerance} > 0")
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)

    given = experiment, params, *on_images.read(source, prepare, num)
    options = {"batch_size": batch_size, "seed": seed, "progress": True}
    if exact:  # first, for it may have no diffrax
        try:
            flow = on_images.exact(*given, probes=probes or None, tolerance=tolerance, **options)
        except (ValueError, ImportError) as error:
            raise UserError(f"--exact: {error}") from error
    bound = on_images.bound(*given, variance=variance, clip=generation.CLIP if clip else None, **options)
    result = {
        "protocol": f"{num} images ({split}), EMA parameters at step {step}, T = {experiment.schedule.num_timesteps}, "
        f"{variance} variance, x̂0 {'' if clip else 'not '}clipped, one draw a timestep, seed {seed}",
        "num": num,
        "bound": likelihood.mean_and_error(bound.total),
        "L_T": likelihood.mean_and_error(bound.prior),
        "L_0": likelihood.mean_and_error(bound.terms[0]),
        "L_t": np.mean(bound.terms[1:], axis=1, dtype=np.float64).tolist(),
        "eps_mse": np.mean(bound.eps_mse, axis=1, dtype=np.float64).tolist(),
    }
    if exact:
        trace = f"{probes} Rademacher probe{'s' * (probes > 1)}" if probes else "exact trace"
        result["exact"] = likelihood.mean_and_error(flow.bits_per_dim)
        result["exact_protocol"] = (
            f"probability flow, Tsit5 with tolerance {tolerance:g}, {trace}, uniform dequantisation, from noise level "
            f"{flow.start:.4g}; at most {flow.num_steps} steps"
        )
    return result


if __name__ == "__main__":
    main()
