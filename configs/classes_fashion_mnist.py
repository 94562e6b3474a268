"""Fashion-MNIST by class, labels dropped one time in ten, sampled with classifier-free guidance.

    python experiments/train.py --config configs/classes_fashion_mnist.py --workdir runs/classes_fashion_mnist \
        --config.data.path=FILE

The network, the file and the time it takes are those of configs/fashion_mnist.py; not run here yet.
"""

import ml_collections

from configs import classes_digits, fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from Fashion-MNIST without classes."""
    return classes_digits.by_class(fashion_mnist.get_config())
