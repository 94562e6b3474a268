"""ImageNet at 64×64 as Improved DDPM trains on it, without classes (Nichol & Dhariwal 2021): 121,063,942 parameters.

    python experiments/prepare.py --dataset imagenet_resized/64x64
    python experiments/train.py --config configs/imagenet64.py --workdir runs/imagenet64

1.5 million steps of 128: about 5 days on a TPU v3-8, by its arithmetic at the rate that DDPM reports there. The paper
has 3.57 bits/dim and FID 19.2 for it. Not run here.
"""

import ml_collections

from configs import cifar10_iddpm


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from Improved DDPM's CIFAR-10."""
    config = cifar10_iddpm.get_config()
    config.data.update(dataset="imagenet_resized/64x64", image_shape=(64, 64, 3), workers=4)
    config.model.update(multipliers=(1, 2, 3, 4), dropout=0.0)
    config.train.steps = 1_500_000
    return config
