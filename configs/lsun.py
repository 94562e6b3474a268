"""LSUN Church, 256×256, as DDPM trains on it (Ho et al. 2020, App. B): 113,673,219 parameters, 1.2 million steps of 64.

    diffjax prepare --dataset lsun/church_outdoor        (it needs tensorflow-io too)
    diffjax train --config lsun --workdir runs/lsun

DDPM trained at 2.2 steps/s on a TPU v3-8, which takes 6.3 days, and reports FID 7.89. Not run here.

From a folder of images: --config.data.source=folder --config.data.path=FOLDER
Bedroom: --config.data.dataset=lsun/bedroom --config.data.random_flip=False --config.train.steps=2400000
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("cifar10")
    config.update(
        {
            "data": {
                "dataset": "lsun/church_outdoor",
                "image_shape": (256, 256, 3),
                "resize": "cover",
                "num_workers": 8,
            },
            "model": {"channel_mults": (1, 1, 2, 2, 4, 4), "dropout": 0.0},
            "optimizer": {"learning_rate": 2e-5},
            "train": {"steps": 1_200_000, "batch_size": 64},
        }
    )
    config.sample = {"sampler": "ddim", "num_steps": 50}
    return config
