"""Measures images against real ones.

python experiments/evaluate.py --workdir runs/digits                     # samples of a trained network
python experiments/evaluate.py --images FOLDER_OR_NPZ --reference FOLDER_OR_NPZ

Prints a Markdown row and writes JSON (`WORKDIR/evaluation.json`, or --out): the unbiased kernel distance (KID) and the
Fréchet distance in features of --extractor, each beside what as many real images would get, and the protocol. Other
--figures are precision and recall (3 neighbours) and, of an extractor with classes, the Inception score (10 parts). Of
a workdir the reference is what its config trains on, the held-out part included; where its network has classes and the
extractor has labels, `accuracy` is the share of samples that it takes for their label. A run on the digits has besides:
  confidence             mean top-class probability of an SVM (RBF) fitted on the real digits, on samples …
  confidence_real        … and on held-out real digits (5-fold)
  frechet_real_halves    Fréchet distance between two random halves of the real digits
  accuracy               of a network of classes: the share of samples that an SVM takes for their label
  class_shares           smallest and largest share of a class among the samples
  neighbour_ratio        with config.data.holdout > 0: the median distance of a sample to its nearest training image,
                         over that of a held-out image; well under 1 would mean memorising
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffjax import data, evaluation, launch
from diffjax.errors import UserError, writing
from diffjax.evaluation import figures, on_images, quality, samples
from diffjax.training import run_config, setup
from diffjax.training.checkpoints import Checkpoints


def main() -> None:
    """Parses the command line, samples, measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    of = parser.add_mutually_exclusive_group(required=True)
    of.add_argument("--workdir", type=Path, help="a folder that train.py has written")
    of.add_argument("--images", type=Path, help="a folder of images, or an npz (arr_0)")
    parser.add_argument("--reference", type=Path, help="real images, for --images: a folder or an npz (arr_0)")
    parser.add_argument("--extractor", default="pixels", help="pixels, a classifier's .safetensors, Inception's .pth")
    parser.add_argument(
        "--figures", nargs="+", choices=quality.FIGURES, default=quality.USUAL,
        help="kernel alone does with few samples",
    )  # fmt: skip
    parser.add_argument("--num", type=int, default=1000, help="how many samples")
    parser.add_argument("--reference-num", type=int, default=10_000, help="how many real images at most")
    parser.add_argument("--steps", type=int, help="of the sampler; default: as config.sample has it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the JSON file")
    args = parser.parse_args()
    with launch.reporting():
        launch.start()
        record = of_workdir(args) if args.workdir else of_images(args)
        print(figures.markdown([figures.from_record({key: record[key] for key in ("figures", "protocol")})]))
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        out = args.out or (args.workdir and args.workdir / "evaluation.json")
        print(text if out is None else out)
        if out is not None:
            with writing(out):
                out.write_text(text)


def of_images(args: argparse.Namespace) -> dict[str, Any]:
    """The record of images on disk.

    Raises:
      UserError: images that cannot be read, or are of another size than the reference.
    """
    if args.reference is None:
        raise UserError("--images needs --reference: what is it to be compared with?")
    sets = [evaluation.images.find(path) for path in (args.images, args.reference)]
    if sets[0].image_shape != sets[1].image_shape:
        shapes = " and ".join(str(found.image_shape) for found in sets)
        raise UserError(f"--images and --reference must be of one size, but are {shapes}")
    extract = quality.extractor(args.extractor, sets[0].image_shape)
    counts = min(args.num, len(sets[0])), min(args.reference_num, len(sets[1]))
    quality.check(*counts, extract, args.figures)
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


def of_workdir(args: argparse.Namespace) -> dict[str, Any]:
    """The record of samples of a workdir.

    Raises:
      UserError: a workdir or a value that cannot be.
    """
    config = run_config.load(args.workdir)
    config.sample.update({"steps": args.steps} if args.steps else {})
    experiment = setup.experiment(config)
    trained_on, held_out, prepare = setup.images(config)
    extract = quality.extractor(args.extractor, experiment.image_shape)
    reference_num = min(args.reference_num, len(trained_on) + len(held_out))
    quality.check(args.num, reference_num, extract, args.figures)
    with Checkpoints(args.workdir) as checkpoints:
        step, params = checkpoints.restore_params(experiment.params_shape, ema=experiment.ema_decay)

    drawn, labels = samples.draw(experiment, params, args.num, seed=args.seed, progress=True)
    options = {name: value for name, value in config.sample.items() if value is not None}
    protocol = {
        "samples": f"{args.workdir}, step {step}",
        "rounding": "nearest",
        "ema": f"EMA {experiment.ema_decay}",
        "sampler": ", ".join(f"{name} {value}" for name, value in options.items()),
        "seed": args.seed,
    }
    parts = [
        on_images.read(part, prepare, count)[0]
        for part in (trained_on, held_out)
        if (count := min(len(part), args.reference_num))
    ]
    real = np.concatenate(parts)[: args.reference_num]
    description = f"{len(real)} images of {config.data.source}"
    record = _record(drawn, real, description, extract, args.figures, protocol, labels)
    return record | (_digits(drawn, labels, *parts) if config.data.source == "digits" else {})


def _record(
    given: np.ndarray,
    real: np.ndarray,
    reference: str,
    extract: evaluation.Extractor,
    names: Sequence[str],
    protocol: dict[str, Any],
    labels: np.ndarray | None = None,
) -> dict[str, Any]:
    found = quality.figures(given, quality.Reference(extract(real).features, reference), extract, names, labels=labels)
    facts = figures.Protocol(num=len(given), reference=reference, extractor=extract.protocol, **protocol)
    return figures.record(found, facts)


def _digits(
    drawn: np.ndarray, labels: np.ndarray | None, trained_on: np.ndarray, held_out: np.ndarray | None = None
) -> dict[str, Any]:
    """What can be said of digits alone."""
    everything = data.digits()
    drawn, real, trained_on = (_pixels(images) for images in (drawn, everything.images, trained_on))
    confidence, shares = evaluation.class_confidence(drawn, real, everything.labels)
    result = {
        "frechet_real_halves": evaluation.half_split_distance(real),
        "confidence": confidence,
        "confidence_real": evaluation.held_out_confidence(real, everything.labels),
        "class_shares": [float(shares.min()), float(shares.max())],
    }
    if labels is not None:
        result["accuracy"] = evaluation.class_accuracy(drawn, labels, real, everything.labels)
    if held_out is not None:
        medians = [
            np.median(evaluation.nearest_distances(queries, trained_on)) for queries in (drawn, _pixels(held_out))
        ]
        result["neighbour_ratio"] = float(medians[0] / medians[1])
    return result


def _pixels(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255.0


if __name__ == "__main__":
    main()
