"""CelebA at 64×64 with DDIM's network and crop (Song et al. 2021): 78,700,803 parameters.

    python experiments/prepare.py --dataset celeb_a
    python experiments/train.py --config configs/celeba64.py --workdir runs/celeba64

500,000 steps of 128 (the paper does not tell its number): about 25 hours on a TPU v3-8, by its arithmetic at the rate
that DDPM reports there. DDIM's Table 1 has FID 13.73, 9.17 and 6.53 for η = 0 in 20, 50 and 100 steps. Not run here.
"""

import ml_collections

from configs import cifar10


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from CIFAR-10."""
    config = cifar10.get_config()
    # 128×128 about (row 121, column 89), halved: the square that DDIM's figures are of.
    config.data.update(
        dataset="celeb_a",
        image_shape=(64, 64, 3),
        window=(57, 25, 128, 128),
        fit="resize",
        resample="area",
        workers=4,
    )
    config.model.multipliers = (1, 2, 2, 2, 4)
    config.train.steps = 500_000
    config.sample.update(sampler="ddim", steps=100, variance=None)
    return config
