"""CIFAR-10 as DDPM trains on it (Ho et al. 2020, App. B): 35,746,307 parameters, 800,000 steps of batch 128.

    diffjax prepare --dataset cifar10
    diffjax train --config cifar10 --workdir runs/cifar10

DDPM took 10.6 hours on a TPU v3-8 (21 steps/s) and reports, for its weights at step 790,000, FID 3.17 against the
training set (50,000 samples, 1000 steps, `fixed_large`). Not run here.

From an npz file: --config.data.source=npz --config.data.path=FILE --config.data.image_key=x_train
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    return ml_collections.ConfigDict(
        {
            "data": {"source": "tfds", "dataset": "cifar10", "image_shape": (32, 32, 3), "random_flip": True},
            "schedule": {"name": "linear", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
            "model": {
                "base_channels": 128,
                "channel_mults": (1, 2, 2, 2),
                "num_res_blocks": 2,
                "attention_resolutions": (16,),
                "dropout": 0.1,
                "num_groups": 32,
            },
            "optimizer": {"learning_rate": 2e-4, "warmup_steps": 5000, "grad_clip_norm": 1.0},
            "train": {"steps": 800_000, "batch_size": 128, "ema_decays": (0.9999,)},
            "sample": {"sampler": "ddpm", "num_steps": 1000, "variance": "fixed_large"},
        }
    )
