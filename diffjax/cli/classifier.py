"""Trains a small classifier on the images of a config; its features serve to measure images like MNIST's.

diffjax classifier --config fashion_mnist --config.data.path=FILE --out fashion.safetensors
diffjax classifier --config fashion_mnist … --out fashion.safetensors --data image_key=x_test,label_key=y_test

Prints its accuracy on the images held out by `config.data.holdout`, or on those of --data.
`diffjax evaluate --extractor FILE` and a sweep's `config.extractor` take the file that it writes.
"""

import argparse

import numpy as np

from diffjax.cli import launch, options
from diffjax.data import NO_LABEL
from diffjax.errors import UserError, naming, writing
from diffjax.metrics.features import classifier
from diffjax.runs import build, real_images


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    options.add_config(parser, "the experiment on whose images it is trained")
    parser.add_argument("--out", type=options.local_path, required=True, help="the .safetensors file")
    parser.add_argument("--epochs", type=options.positive, default=4, help="passes over the images (default: 4)")
    options.add_data(parser)


def run(args: argparse.Namespace) -> None:
    """Trains the classifier, tests it, and writes it."""
    launch.start()
    config = options.config(args)
    options.output_file(args.out, ".safetensors")
    seen = build.images(config)
    others = build.images(options.data(args, config)) if args.data else seen._replace(source=seen.held_out)
    images, labels = _read(seen)
    tested, tested_labels = _read(others) if len(others.source) else (images[:0], labels[:0])
    with naming("config.data"):
        trained = classifier.train(images, labels, epochs=args.epochs, trained_on=config.data.source)
    with writing(args.out):
        classifier.save(args.out, trained)
    line = f"{args.out}: trained on {len(images)} images"
    if len(tested):
        line += f"; accuracy {classifier.accuracy(trained, tested, tested_labels):.4f} on {len(tested)} others"
    print(line)


def _read(images: build.Images) -> tuple[np.ndarray, np.ndarray]:
    """Returns all images, uint8 `[N, H, W, C]`, and their labels, int32 `[N]`.

    Raises:
      UserError: an image that cannot be read, or that has no label.
    """
    pixels, labels = real_images.read(images.source, images.prepare, len(images.source))
    without = np.flatnonzero(labels == NO_LABEL)
    if without.size:
        raise UserError(
            f"config.data.source: a classifier needs a label of every image, but {without.size} of {len(labels)} have "
            f"none, such as image {without[0]}"
        )
    return pixels, labels
