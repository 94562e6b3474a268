r"""Super-resolution of faces, 16×16 → 128×128, as in SR3 (Saharia et al. 2021), from a folder of images.

    diffjax train --config sr3_faces_16_128 --workdir runs/sr3_faces_16_128 \
        --config.data.path=FOLDER

97,807,491 parameters: the network of Janspiry's code (the paper's has 550 million).
SR3 reports PSNR 23.04, SSIM 0.65, consistency 2.68 on CelebA-HQ (regression: 23.96, 0.69, 2.71) after a million steps
on FFHQ. Not run here.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    return ml_collections.ConfigDict(
        {
            "task": {"name": "super_resolution", "noise_level_scale": 1.0},
            "data": {
                "source": "folder",
                "path": "data/ffhq",
                "image_shape": (128, 128, 3),
                "resize": "cover",
                "random_flip": True,
                "num_workers": 8,
                "degradation": {"kinds": ("bicubic",), "factor": 8},
            },
            "schedule": {"name": "linear", "num_timesteps": 2000, "beta_start": 1e-6, "beta_end": 0.01},
            "model": {
                "base_channels": 64,
                "channel_mults": (1, 2, 4, 8, 8),
                "num_res_blocks": 2,
                "attention_resolutions": (16,),
                "dropout": 0.2,
                "num_groups": 32,
                "norm_eps": 1e-5,
                "downsample_padding": (1, 1),
                "freq_shift": 0,
                "activate_embedding": False,
                "qkv_bias": False,
                "time_channels": (64, 256, 64),
            },
            "optimizer": {"learning_rate": 1e-4, "warmup_steps": 10_000},
            "train": {"steps": 1_000_000, "batch_size": 256, "loss_norm": "l1", "ema_decays": (0.9999,)},
            "sample": {"sampler": "ddpm", "num_steps": 2000},
        }
    )
