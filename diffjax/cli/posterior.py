"""The part of `diffjax restore` that samples posteriors: `--operator` and `--method`."""

import argparse
import json

from diffjax import interop, viz
from diffjax.cli import launch, options
from diffjax.errors import UserError, writing
from diffjax.files import write
from diffjax.inverse.registry import METHODS, OPERATORS
from diffjax.metrics import image_quality, lpips, records, registry
from diffjax.metrics.image_quality import Measure
from diffjax.runs import posterior, resolve, restoration, restoration_files, restore, run
from diffjax.runs.posterior import Measured, Named
from diffjax.runs.run import Run

_NOT_HERE = ("sample", "cascade", "search", "whole")
"""Flags of `diffjax restore` for networks that restore images by themselves."""

_FLAGS = ("weights", "method", "noise_std", "num_samples", "steps", "spacing")
"""Flags for posterior sampling, besides `--operator`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    group = parser.add_argument_group("posterior sampling", "for networks that generate images")
    group.add_argument("--operator", metavar="NAME[,OPTION=VALUE,…]", help=f"A: {', '.join(OPERATORS)}")
    group.add_argument(
        "--method", action="append", default=[], metavar="NAME[,OPTION=VALUE,…]",
        help=f"{', '.join(METHODS)}, or an import path (repeatable; default: mmps)",
    )  # fmt: skip
    group.add_argument(
        "--noise-std", type=options.nonnegative, default=None, metavar="σ",
        help="the standard deviation of the measurements' noise, for images in [-1, 1] (default: 0.05)",
    )  # fmt: skip
    group.add_argument(
        "--num-samples", type=options.positive, default=None, metavar="K",
        help="samples of each image; two or more give its mean and its calibration (default: 1)",
    )  # fmt: skip
    group.add_argument("--steps", metavar="S", help="the number of steps (default: as in the run's config)")
    group.add_argument("--spacing", metavar="NAME", help="the rule that spaces the timesteps")


def check_absent(args: argparse.Namespace) -> None:
    """Checks that no flag of posterior sampling is given.

    Raises:
      UserError: one is.
    """
    given = [name for name in _FLAGS if getattr(args, name) not in (None, [])]
    if given:
        raise UserError(f"--{given[0].replace('_', '-')} goes with --operator, which samples posteriors")


def run_command(args: argparse.Namespace) -> None:
    """Samples posteriors by each method, measures them beside the runs of --compare, and writes figures and images.

    Raises:
      UserError: a flag of other networks, an invalid value, or images that do not fit.
    """
    if wrong := next((name for name in _NOT_HERE if getattr(args, name)), None):
        raise UserError(f"--{wrong} goes without --operator, with networks that restore images")
    launch.start()
    out = options.output_folder(args.out or (args.workdir / "restored" if args.workdir else "restored"))
    noise_std = 0.05 if args.noise_std is None else args.noise_std
    num_samples = args.num_samples or 1
    operator = _named(args.operator, OPERATORS, "--operator")
    methods = {text: _named(text, METHODS, "--method") for text in args.method or ["mmps"]}
    network = _network(args)
    posterior.check(network)
    others = {}
    for workdir in args.compare:
        others |= {name: (workdir, made) for name, made in restore.others([workdir], network.image_shape).items()}
    config = options.data(args, _with_images(network))
    tile = (args.tile, args.tile, network.image_shape[2]) if args.tile else network.image_shape
    extract = registry.extractor(args.extractor, tile)
    perceptual = lpips.load(*args.lpips) if args.lpips else None
    images = posterior.measured(config, operator, args.num, noise_std=noise_std, seed=args.seed)
    names = tuple(dict.fromkeys((*image_quality.USUAL, args.best)))
    measure = Measure(images.pairs, extract, tile, luma_alone=args.luma, perceptual=perceptual, names=names)

    restored = {"input": [pair.condition for pair in images.pairs]}
    figures = {"input": measure(restored["input"])}
    described = {"input": "none"}
    for name, (workdir, method) in others.items():
        conditions = restoration.conditions(run.load(workdir).config, images.pairs, seed=args.seed)
        restored[name] = restoration.restore_all(method.restore, conditions, seed=args.seed, batch_size=args.batch_size)
        figures[name], described[name] = measure(restored[name]), f"{method.source}: {method.sampler}"
    for text, method in methods.items():
        print(f"{text}: {num_samples} × {args.num} images", flush=True)
        samples = posterior.sample(network, method, images, num_samples, seed=args.seed, batch_size=args.batch_size)
        described[text] = posterior.describe(network, method, num_samples)
        restored[text] = list(samples[0])
        figures[text] = measure(restored[text]) | posterior.figures(images, samples)
        if num_samples > 1:
            average = f"{text}, mean of {num_samples}"
            restored[average], described[average] = posterior.mean(samples), described[text]
            figures[average] = measure(restored[average])

    protocol = _protocol(network, operator, images, extract.protocol, config.data.source, args)
    rows = [(figures[name], protocol(name, described[name])) for name in restored]
    text = records.markdown(rows)
    print(text)
    with writing(out):
        write(out / "restoration.md", text)
        columns = restored | {"truth": [pair.truth for pair in images.pairs]}
        print(viz.save_png(out / "restored.png", restoration_files.picture(columns, {}, crop=False)))
        restoration_files.save_images(out, restored[next(iter(methods))], separate=False)
        saved = {"rows": [records.record(*row) for row in rows], "operator": operator._asdict(), "noise_std": noise_std}
        print(write(out / "restoration.json", json.dumps(saved, indent=2, ensure_ascii=False) + "\n"))


def _named(text: str, of, flag: str) -> Named:
    name, _, rest = text.partition(",")
    return posterior.parse(name.strip(), options.assignments(flag, rest) if rest else {}, of, flag)


def _network(args: argparse.Namespace) -> Run:
    """Returns the run or the weights, with the grid that the flags set."""
    loaded = run.load(args.workdir) if args.workdir else interop.load(args.weights)
    changes = {"num_steps": args.steps, "timestep_spacing": args.spacing}
    texts = {f"sample.{field}": text for field, text in changes.items() if text is not None}
    parsed = resolve.flatten(resolve.parse(loaded.config, texts).sample) if texts else {}
    return loaded.with_options(**{field: parsed[field] for field, text in changes.items() if text is not None})


def _with_images(network: Run):
    """Returns the config of the run, or, for weights alone, one with images of their shape; --data names them."""
    if network.config.data.source != "unknown":
        return network.config
    return resolve.resolve({"data": {"image_shape": network.image_shape}})


def _protocol(network: Run, operator: Named, images: Measured, extractor: dict, source: str, args: argparse.Namespace):
    """Returns a function from the name of a row and its sampler to its protocol."""
    shown = ",".join([operator.name, *(f"{name}={value}" for name, value in operator.options.items())])
    what = " ".join([f"{args.num} images of {source}", *args.data])

    def protocol(name: str, sampler: str) -> records.Protocol:
        return records.Protocol(
            samples=f"{name} ({network.source})" if sampler != "none" else name,
            num=args.num,
            reference=f"{what}; y by {shown}, σ_y = {images.noise_std}",
            extractor=extractor | ({"lpips": "0.1 on AlexNet, standard weights"} if args.lpips else {}),
            rounding="nearest",
            ema=network.parameters if sampler != "none" else "none",
            sampler=sampler,
            seed=args.seed,
        )

    return protocol
