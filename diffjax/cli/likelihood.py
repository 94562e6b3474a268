"""Measures the likelihood of images under a trained model in bits/dim: the variational bound, and the exact one.

diffjax likelihood --workdir runs/digits --exact
diffjax likelihood --workdir runs/fashion_mnist --exact --data image_key=x_test,label_key=y_test

Prints JSON, and writes it to WORKDIR/likelihood.json or --out. Figures are [mean, standard error over images], in
bits/dim:
  protocol   the images, parameters, variance, clipping, dequantisation and tolerance
  bound      the variational bound, the sum of
  L_T        the prior's term,
  L_0        the decoder's term, and
  L_t        the terms of the timesteps 1 … T-1 (means only); `eps_mse` is the squared error of ε̂ at 0 … T-1
  exact      with --exact: the probability flow's likelihood, with uniform dequantisation (needs diffrax: the extra
             `likelihood`)
The noise of image n is that of sample n of the seed, so figures do not depend on the batch size.
"""

import argparse
import json
from typing import Any

import ml_collections
import numpy as np

from diffjax import likelihood
from diffjax.cli import launch, options, real
from diffjax.errors import UserError, writing
from diffjax.json_files import write_record
from diffjax.runs import real_images, saved
from diffjax.runs.run import of_config

_VARIANCES = ("fixed_small", "fixed_large", "learned_range")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_workdir(parser)
    real.add_images(parser)
    parser.add_argument(
        "--variance", choices=_VARIANCES,
        help="the variance of the bound (default: learned_range where the network predicts it, else fixed_small)",
    )  # fmt: skip
    parser.add_argument("--no-clip", action="store_true", help="do not clip x̂0 in the bound")
    parser.add_argument("--exact", action="store_true", help="compute the probability flow's likelihood too")
    parser.add_argument(
        "--probes", type=options.natural, default=1,
        help="probes that estimate the divergence; 0: its exact trace, for small images (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=_tolerance, default=1e-6,
        help="the relative and absolute tolerance of the flow's solver (default: 1e-6)",
    )  # fmt: skip
    options.add_parameters(parser)
    parser.add_argument("--batch-size", type=options.positive, default=100, help="images at a time (default: 100)")
    parser.add_argument("--seed", type=options.seed, default=0, help="the seed of the noise (default: 0)")
    parser.add_argument("--out", type=options.path, help="the JSON file (default: WORKDIR/likelihood.json)")


def run(args: argparse.Namespace) -> None:
    """Measures the likelihood, writes the figures and prints them."""
    launch.start()
    out = options.output_file(args.out or args.workdir / "likelihood.json")
    record = _measure(args, saved.load(args.workdir))
    with writing(out):
        write_record(out, record)
    print(json.dumps(record, indent=2, ensure_ascii=False))


def _measure(args: argparse.Namespace, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Returns the figures of the module's docstring.

    Raises:
      UserError: a run that restores images, a variance that its network does not predict, no images or fewer than
        `--num`, or no diffrax.
    """
    task = real.generating_task(args, config)
    variance = args.variance or ("learned_range" if task.predicts_variance else "fixed_small")
    if "learned" in variance and not task.predicts_variance:
        raise UserError(
            f"--variance={variance} needs a network that predicts it (config.train.vlb_weight > 0); this one allows "
            "fixed_small, fixed_large"
        )
    images, labels = real.images(args, config, task)
    network = of_config(config, args.workdir, ema=options.parameters(args))

    given = network, images, labels
    same = {"batch_size": args.batch_size, "seed": args.seed, "progress": True}
    result: dict[str, Any] = {}
    if args.exact:  # first: diffrax may not be installed
        try:
            flow = real_images.exact(*given, probes=args.probes or None, tolerance=args.tolerance, **same)
        except (ValueError, ImportError) as error:
            raise UserError(f"--exact: {error}") from error
        result = _exact_figures(args, flow)
    bound = real_images.bound(*given, variance=variance, clip=None if args.no_clip else task.clip, **same)
    clipped = "not clipped" if args.no_clip else "clipped"
    return {
        "protocol": f"{len(images)} images ({real.description(args)}), {network.parameters} parameters at step "
        f"{network.step}, T = {task.schedule.num_timesteps}, {variance} variance, x̂0 {clipped}, one noise sample per "
        f"timestep, seed {args.seed}",
        "num": len(images),
        "bound": likelihood.mean_and_error(bound.total),
        "L_T": likelihood.mean_and_error(bound.prior),
        "L_0": likelihood.mean_and_error(bound.terms[0]),
        "L_t": np.mean(bound.terms[1:], axis=1, dtype=np.float64).tolist(),
        "eps_mse": np.mean(bound.eps_mse, axis=1, dtype=np.float64).tolist(),
    } | result


def _exact_figures(args: argparse.Namespace, flow: likelihood.Exact) -> dict[str, Any]:
    trace = f"{args.probes} Rademacher probe{'s' * (args.probes > 1)}" if args.probes else "exact trace"
    return {
        "exact": likelihood.mean_and_error(flow.bits_per_dim),
        "exact_protocol": f"probability flow, Tsit5 with tolerance {args.tolerance:g}, {trace}, "
        f"uniform dequantisation, from noise level {flow.start:.4g}; at most {flow.num_steps} steps",
    }


def _tolerance(text: str) -> float:
    """Parses a number within (0, 1), as a `type=` of argparse."""
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{value} must be within (0, 1)")
    return value
