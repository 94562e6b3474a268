"""ImageNet at 64×64 as Improved DDPM trains on it, without classes (Nichol & Dhariwal 2021): 121,063,942 parameters.

    diffjax prepare --dataset imagenet_resized/64x64
    diffjax train --config imagenet64 --workdir runs/imagenet64

1.5 million steps of batch 128: about 5 days on a TPU v3-8, estimated from the FLOPs and the speed that DDPM reports
there. The paper reports 3.57 bits/dim and FID 19.2. Not run here.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("cifar10_iddpm")
    config.update(
        {
            "data": {"dataset": "imagenet_resized/64x64", "image_shape": (64, 64, 3), "num_workers": 4},
            "model": {"channel_mults": (1, 2, 3, 4), "dropout": 0.0},
            "train": {"steps": 1_500_000},
        }
    )
    return config
