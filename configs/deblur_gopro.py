r"""Deblurring of GoPro (Nah et al. 2017) as Whang et al. (2022) train on it, on patches of 128×128.

    diffjax train --config deblur_gopro --workdir runs/deblur_gopro \
        --config.data.path=GOPRO/train
    diffjax restore --workdir runs/deblur_gopro --data path=GOPRO/test --whole --num 1111 --batch-size 1 \
        --sample num_steps=500 --sample num_steps=10,num_samples=8

The folder holds SCENE/blur/*.png and SCENE/sharp/*.png. The paper has a predictor of 26 million parameters and a
denoiser of 7 million, and reports FID 4.04 (T = 500), PSNR 33.23 (T = 10, averaged), and 33.07 for the predictor alone.
The learning rate, the batch size and the widths of the levels are guesses. Not run here.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    return ml_collections.ConfigDict(
        {
            "task": {"name": "deblurring", "predictor_channels": 64},
            "data": {
                "source": "pairs",
                "path": "data/gopro/train",
                "image_shape": (128, 128, 3),
                "resize": "crop",
                "crop": "random",
                "random_flip": True,
                "random_rot90": True,
                "num_workers": 8,
            },
            "schedule": {"name": "linear", "num_timesteps": 2000, "beta_start": 1e-6, "beta_end": 0.01},
            "model": {
                "base_channels": 32,
                "channel_mults": (1, 2, 3, 4),
                "num_res_blocks": 3,
                "attention_resolutions": (),
                "middle_attention": False,
                "dropout": 0.0,
                "num_groups": 8,
            },
            "optimizer": {"learning_rate": 1e-4, "warmup_steps": 10_000},
            "train": {"steps": 1_000_000, "batch_size": 32, "loss_norm": "l1", "ema_decays": (0.9999,)},
            "sample": {"sampler": "ddim", "num_steps": 500, "eta": 1.0},
        }
    )
