"""Measures images against real ones: samples of a trained run, or images on disk.

diffjax evaluate --workdir runs/digits [--sampler ddpm --steps 1000 …]
diffjax evaluate --images FOLDER_OR_NPZ --reference FOLDER_OR_NPZ

Prints a Markdown row and writes JSON (WORKDIR/evaluation.json, or --out): the unbiased kernel distance (KID) and the
Fréchet distance in features of --extractor, each beside the value of as many real images, and the protocol. Other
--figures are precision and recall (3 neighbours) and, with an extractor that has classes, the Inception score (10
parts); an import path "package.module:attribute" names your own metric. For a workdir the reference is the data of
its config, the held-out part included; for a network with classes and an extractor with such labels, `accuracy` is the
share of samples that are classified as their label. A run on the digits also gets:
  confidence             mean top-class probability of an SVM (RBF), fitted to the real digits, on samples …
  confidence_real        … and on held-out real digits (5-fold)
  frechet_real_halves    Fréchet distance between two random halves of the real digits
  class_shares           smallest and largest share of a class among the samples
  accuracy               for a network with classes: the share of samples that an SVM classifies as their label
  neighbour_ratio        with config.data.holdout > 0: the median distance of a sample to its nearest training image,
                         divided by that of a held-out image; well below 1 means memorisation
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from diffjax.cli import launch, options
from diffjax.data import SOURCES
from diffjax.errors import UserError, writing
from diffjax.json_files import write_record
from diffjax.metrics import Extractor, image_sets, records, registry
from diffjax.registry import import_path
from diffjax.runs import build, real_images, resolve, saved
from diffjax.runs.run import of_config
from diffjax.tasks.base import TASKS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    measured = parser.add_mutually_exclusive_group(required=True)
    options.add_workdir(measured, required=False)
    measured.add_argument("--images", type=options.local_path, help="a folder of images, or an npz file (arr_0)")
    parser.add_argument(
        "--reference", type=options.local_path, help="the real images for --images: a folder, or an npz file (arr_0)"
    )
    parser.add_argument(
        "--extractor", default="pixels", metavar="NAME",
        help="pixels, a classifier's .safetensors file, Inception's .pth file, or an import path (default: pixels)",
    )  # fmt: skip
    parser.add_argument(
        "--figures", nargs="+", default=registry.USUAL, metavar="NAME",
        help=f"of {', '.join(registry.METRICS)}, or import paths; kernel works with few samples "
        f"(default: {' '.join(registry.USUAL)})",
    )  # fmt: skip
    parser.add_argument("--num", type=options.positive, default=1000, help="the number of samples (default: 1000)")
    parser.add_argument(
        "--reference-num", type=options.positive, default=10_000,
        help="the largest number of real images (default: 10000)",
    )  # fmt: skip
    parser.add_argument("--seed", type=options.seed, default=0, help="the seed of the samples' noise (default: 0)")
    options.add_parameters(parser)
    parser.add_argument(
        "--out", type=options.path, help="the JSON file (default: WORKDIR/evaluation.json; printed for --images)"
    )
    options.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Samples or reads images, measures them, and writes the record."""
    launch.start()
    out = args.out or (args.workdir and args.workdir / "evaluation.json")
    if out is not None:
        options.output_file(out)
    record = _of_workdir(args) if args.workdir else _of_images(args)
    print(records.markdown([records.from_record({key: record[key] for key in ("figures", "protocol")})]))
    if out is None:
        print(json.dumps(record, indent=2, ensure_ascii=False) + "\n")
        return
    with writing(out):
        print(write_record(out, record))


def _of_images(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the record of images on disk.

    Raises:
      UserError: arguments of --workdir, or images that cannot be read or are of another size than the reference.
    """
    for name in ("ema", "raw", "sample", *options.SAMPLE_FLAGS):
        if getattr(args, name) not in (None, False, []):
            raise UserError(f"--{name} goes with --workdir: images on disk are not sampled")
    if args.reference is None:
        raise UserError("--images needs --reference, the real images to compare them with")
    sets = [image_sets.find(path) for path in (args.images, args.reference)]
    if sets[0].image_shape != sets[1].image_shape:
        shapes = " and ".join(str(found.image_shape) for found in sets)
        raise UserError(f"--images and --reference must be of one size, but are {shapes}")
    extract = registry.extractor(args.extractor, sets[0].image_shape)
    counts = min(args.num, len(sets[0])), min(args.reference_num, len(sets[1]))
    registry.check(*counts, extract, args.figures)
    given, real = (np.concatenate(list(found.batches())) for found in sets)
    protocol = {
        "samples": str(args.images),
        "rounding": "unknown",
        "ema": "unknown",
        "sampler": "unknown",
        "seed": None,
    }
    return _record(
        given[: args.num], real[: args.reference_num], str(args.reference), extract, args.figures, protocol
    )  # fmt: skip


def _of_workdir(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the record of a run's samples.

    Raises:
      UserError: an invalid workdir or value, or a run that restores images.
    """
    if args.reference is not None:
        raise UserError("--reference goes with --images: the reference of a workdir is the data of its config")
    config = options.sampling(args, saved.load(args.workdir))
    if TASKS[config.task.name].is_conditional:
        raise UserError(f"--workdir={args.workdir}: this run restores images: use `diffjax restore`")
    images = build.images(config)
    extract = registry.extractor(args.extractor, config.data.image_shape)
    reference_num = min(args.reference_num, len(images.source) + len(images.held_out))
    registry.check(args.num, reference_num, extract, args.figures)
    network = of_config(config, args.workdir, ema=options.parameters(args))

    samples = network.sample(args.num, seed=args.seed, progress=True)
    labels = network.labels(args.num)
    fields = resolve.flatten(config.sample)
    protocol = {
        "samples": f"{args.workdir}, step {network.step}",
        "rounding": "nearest",
        "ema": network.parameters,
        "sampler": ", ".join(f"{name} {value}" for name, value in fields.items() if value is not None),
        "seed": args.seed,
    }
    trained_on, held_out = (
        real_images.read(source, images.prepare, count)[0] if (count := min(len(source), args.reference_num)) else None
        for source in (images.source, images.held_out)
    )
    real = np.concatenate([part for part in (trained_on, held_out) if part is not None])[: args.reference_num]
    description = f"{len(real)} images of {config.data.source}"
    record = _record(samples, real, description, extract, args.figures, protocol, labels)
    return record | _extra_figures(config, samples, labels, trained_on, held_out)


def _record(
    given: np.ndarray,
    real: np.ndarray,
    reference: str,
    extract: Extractor,
    names: Sequence[str],
    protocol: dict[str, Any],
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    features = registry.Reference(extract(real).features, reference)
    found = registry.measure(given, features, extract, names, labels=labels)
    facts = records.Protocol(num=len(given), reference=reference, extractor=extract.protocol, **protocol)
    return records.record(found, facts)


def _extra_figures(
    config: ml_collections.ConfigDict,
    samples: np.ndarray,
    labels: np.ndarray | None,
    trained_on: np.ndarray,
    held_out: np.ndarray | None,
) -> dict[str, Any]:
    """Returns the figures that the registered source adds (`data.SOURCES`), with the labels of the source itself."""
    path = getattr(SOURCES[config.data.source], "extra_figures", None)
    if path is None:
        return {}
    if labels is not None and config.data.classes is not None:
        labels = np.asarray(config.data.classes)[labels]
    return import_path(path)(samples, labels, trained_on, held_out)
