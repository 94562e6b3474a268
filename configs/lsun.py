"""LSUN Church, 256×256, as DDPM trains on it (Ho et al. 2020, App. B): 113,673,219 parameters, 1.2 million steps of 64.

    python experiments/prepare.py --dataset lsun/church_outdoor        (it needs tensorflow-io too)
    python experiments/train.py --config configs/lsun.py --workdir runs/lsun

DDPM trained 2.2 steps/s on a TPU v3-8, so 6.3 days, and reports FID 7.89. Not run here.

From a folder of images: --config.data.source=folder --config.data.dataset= --config.data.path=FOLDER
Bedroom: --config.data.dataset=lsun/bedroom --config.data.flip=False --config.train.steps=2400000
"""

import ml_collections

from configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from CIFAR-10."""
    config = cifar10.get_config()
    config.data.update(dataset="lsun/church_outdoor", image_shape=(256, 256, 3), fit="resize", workers=8)
    config.model.update(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)
    config.optimizer.learning_rate = 2e-5
    config.train.update(steps=1_200_000, batch_size=64)
    config.sample.update(sampler="ddim", steps=50, variance=None)
    return config
