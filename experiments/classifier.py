"""Trains a small classifier on the images of a config: the feature space for MNIST-like data.

python experiments/classifier.py --config configs/fashion_mnist.py --config.data.path=FILE --out fashion.safetensors

Prints its accuracy on what `config.data.holdout` sets apart, or, for an npz, on the arrays that --test-images and
--test-labels name. `evaluate.py --extractor FILE` and a sweep's `config.extractor` take what it writes.
"""

import sys
from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from diffjax import launch
from diffjax.errors import UserError, naming, writing
from diffjax.evaluation import classifier
from diffjax.training import setup
from diffjax.training.flags import parse_flags

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment whose images it learns; --config.x=y too.")
OUT = flags.DEFINE_string("out", None, "The .safetensors file.")
EPOCHS = flags.DEFINE_integer("epochs", 4, "How often it sees each image.", lower_bound=1)
TEST_IMAGES = flags.DEFINE_string("test-images", None, "An npz's array of other images.")
TEST_LABELS = flags.DEFINE_string("test-labels", None, "And of their labels.")


def main(argv: list[str]) -> None:
    """Trains, tests, writes."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}")
    with launch.reporting():
        launch.start()
        config, out = CONFIG.value, Path(OUT.value)
        if out.suffix != ".safetensors":
            raise UserError(f"--out={out}: must end in .safetensors")
        seen, unseen, prepare = setup.images(config)
        if TEST_IMAGES.value:
            unseen = _other(config)
        with writing(out):
            out.parent.mkdir(parents=True, exist_ok=True)
        images, labels = _arrays(seen, prepare)
        with naming("config.data"):
            trained = classifier.train(images, labels, epochs=EPOCHS.value, trained_on=str(config.data.source))
        with writing(out):
            classifier.save(out, trained)
        tested = f"; accuracy {classifier.accuracy(trained, *_arrays(unseen, prepare)):.4f} on {len(unseen)} others"
        print(f"{out}: trained on {len(seen)} images{tested if len(unseen) else ''}")


def _other(config: ConfigDict):
    other = config.copy_and_resolve_references()
    with naming("config.data"):
        if config.data.source != "npz":
            raise ValueError(f"--test-images is for source='npz'; this one is {config.data.source!r}")
        other.data.update(images=TEST_IMAGES.value, labels=TEST_LABELS.value, holdout=0.0)
    return setup.images(other)[0]


def _arrays(source, prepare) -> tuple[np.ndarray, np.ndarray]:
    items = [source[n] for n in range(len(source))]
    return np.stack([prepare(item["image"]) for item in items]), np.array([item["label"] for item in items])


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1]))  # configs import one another
    flags.mark_flags_as_required(["config", "out"])
    app.run(main, flags_parser=parse_flags)
