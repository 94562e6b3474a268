r"""Deblurring by stochastic refinement (Whang et al. 2022) of grey photographs, on patches of 48×48.

    diffjax train --config deblur_small --workdir runs/deblur_small \
        --config.data.path=FOLDER
    diffjax restore --workdir runs/deblur_small --data path=OTHER_FOLDER --whole --num 10 --batch-size 1 --tile 8 \
        --best frechet --sample num_steps=20 --sample num_steps=20,num_samples=8 --sample num_steps=50 \
        --sample num_steps=10 --sample num_steps=5 --sample num_steps=3 --sample num_steps=20,noise_scale=0.75 \
        --sample num_steps=20,noise_scale=0.5

FOLDER holds photographs of any size from 48×48 up. The blur of each example is sampled anew: Gaussian, motion or
defocus, with noise. The two networks have 0.62 million parameters; 6,000 steps on the 200 photographs of BSDS500's
training part took 53 minutes on one CPU core that was shared. PSNR, SSIM and Fréchet distance of 8×8 tiles on 10 whole
photographs of its test part (481×321, each with its own blur): input 24.58, 0.636, 0.168; predictor 25.45, 0.690,
0.114; one sample of 20 steps 25.47, 0.686, 0.113; the mean of 8 such samples 25.51, 0.690, 0.116; one of 5 steps 25.31,
0.669, 0.102; one with half the noise (noise_scale) 24.00, 0.524, 0.060, which leaves grain.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    return ml_collections.ConfigDict(
        {
            "task": {"name": "deblurring", "predictor_channels": 16},
            "data": {
                "source": "folder",
                "path": "data/photographs",
                "image_shape": (48, 48, 1),
                "resize": "crop",
                "crop": "random",
                "random_flip": True,
                "random_rot90": True,
                "cache_in_memory": True,
                "degradation": {
                    "kinds": ("gaussian", "motion", "defocus"),
                    "sigma": (1.0, 3.0),
                    "length": (5.0, 15.0),
                    "radius": (1.5, 4.0),
                    "noise": (0.0, 4.0),
                },
            },
            "schedule": {"name": "linear", "num_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02},
            "model": {
                "base_channels": 16,
                "channel_mults": (1, 2, 4),
                "num_res_blocks": 1,
                "attention_resolutions": (),
                "middle_attention": False,
                "dropout": 0.0,
                "num_groups": 8,
            },
            "optimizer": {"learning_rate": 1e-3, "warmup_steps": 200, "lr_schedule": "cosine"},
            "train": {
                "steps": 6000,
                "batch_size": 8,
                "loss_norm": "l1",
                "ema_decays": (0.999,),
                "log_every": 50,
                "sample_every": 1000,
                "checkpoint_every": 500,
            },
            "sample": {"sampler": "ddim", "num_steps": 50, "eta": 1.0},
        }
    )
