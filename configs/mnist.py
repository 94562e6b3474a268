"""MNIST, 28×28 padded to 32×32.

    python experiments/prepare.py --dataset mnist
    python experiments/train.py --config configs/mnist.py --workdir runs/mnist

The network and the time it takes are those of configs/fashion_mnist.py; not run here.
"""

import ml_collections

from configs import fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from Fashion-MNIST."""
    config = fashion_mnist.get_config()
    config.data.update(source="tfds", path=None, images=None, labels=None, dataset="mnist", flip=False)
    return config
