"""CelebA at 64×64 with DDIM's network and crop (Song et al. 2021): 78,700,803 parameters.

    diffjax prepare --dataset celeb_a
    diffjax train --config celeba64 --workdir runs/celeba64

500,000 steps of batch 128 (the paper does not state the number): about 25 hours on a TPU v3-8, estimated from the FLOPs
and the speed that DDPM reports there. DDIM's Table 1 has FID 13.73, 9.17 and 6.53 for η = 0 in 20, 50 and 100 steps.
Not run here.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("cifar10")
    config.update(
        {
            # The square of 128×128 around (row 121, column 89), halved: the crop of DDIM's figures.
            "data": {
                "dataset": "celeb_a",
                "image_shape": (64, 64, 3),
                "crop_box": (57, 25, 128, 128),
                "resize": "cover",
                "resample": "area",
                "num_workers": 4,
            },
            "model": {"channel_mults": (1, 2, 2, 2, 4)},
            "train": {"steps": 500_000},
        }
    )
    config.sample = {"sampler": "ddim", "num_steps": 100}
    return config
