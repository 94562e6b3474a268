r"""Super-resolution of CIFAR-10, 8×8 → 32×32, from an npz file with x_train (uint8 [50000, 32, 32, 3]).

    python experiments/train.py --config configs/sr3_cifar10.py --workdir runs/sr3_cifar10 \
        --config.data.path=FILE

With --config.task.name=regression it is the regression that it is compared with. Not run here yet.
"""

import ml_collections

from configs import sr3_fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from Fashion-MNIST."""
    config = sr3_fashion_mnist.get_config()
    config.data.update(path="data/cifar10.npz", image_shape=(32, 32, 3), fit="exact", flip=True)
    config.train.steps = 2_500
    return config
