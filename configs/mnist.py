"""MNIST, 28×28 padded to 32×32.

    diffjax prepare --dataset mnist
    diffjax train --config mnist --workdir runs/mnist

The network and the training time are those of configs/fashion_mnist.py; not run here.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("fashion_mnist")
    config.data = {"source": "tfds", "dataset": "mnist", "image_shape": (32, 32, 1), "resize": "pad"}
    return config
