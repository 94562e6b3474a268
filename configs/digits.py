"""scikit-learn's 1,797 handwritten digits, 8×8.

    python experiments/train.py --config configs/digits.py --workdir runs/digits

3 min 31 s on 2 CPU cores, pictures included. 1,000 EMA samples of DDIM-50: Fréchet distance in pixel space 0.058
(two halves of the real digits: 0.072), mean top-class probability of an SVM 0.901 (held-out real digits: 0.908).
"""

import ml_collections
from ml_collections.config_dict import placeholder


def get_config() -> ml_collections.ConfigDict:
    """The experiment; a field of None is left to its default."""
    return ml_collections.ConfigDict(
        {
            "seed": 0,
            "task": {
                "name": "generation",
                "told": "sqrt_alpha_bar",
                "drawn": "sqrt_alpha_bar",
                "level_scale": 1000.0,
                "predictor_channels": placeholder(int),
                "frozen": False,
                "predictor_workdir": placeholder(str),
            },
            "data": {
                "source": "digits",
                "path": placeholder(str),
                "images": placeholder(str),
                "labels": placeholder(str),
                "conditions": placeholder(str),
                "dataset": placeholder(str),
                "split": placeholder(str),
                "data_dir": placeholder(str),
                "image_shape": (8, 8, 1),
                "window": placeholder(tuple),
                "fit": "exact",
                "crop": "center",
                "resample": "bicubic",
                "flip": False,
                "turn": False,
                "degradation": {
                    "kinds": (),
                    "sigma": (1.0, 1.0),
                    "length": (9.0, 9.0),
                    "angle": (0.0, 180.0),
                    "radius": (2.0, 2.0),
                    "noise": (0.0, 0.0),
                    "factor": 4,
                },
                "holdout": 0.0,
                "cached": False,
                "resident": False,
                "workers": 0,
            },
            "schedule": {
                "name": "linear",
                "num_timesteps": 1000,
                "beta_start": placeholder(float),
                "beta_end": placeholder(float),
                "offset": placeholder(float),
                "max_beta": placeholder(float),
                "width": placeholder(float),
                "beta": placeholder(float),
            },
            "model": {
                "channels": 16,
                "multipliers": (1, 2),
                "num_res_blocks": 2,
                "attention_resolutions": (),
                "dropout": 0.0,
                "groups": 4,
                "num_classes": placeholder(int),
                "dtype": "float32",
            },
            "optimizer": {
                "name": "adam",
                "learning_rate": 2e-3,
                "warmup_steps": 100,
                "decay": "cosine",
                "clip_norm": 1.0,
            },
            "train": {
                "steps": 4000,
                "batch_size": 64,
                "target": "eps",
                "loss": "l2",
                "huber_delta": 1.0,
                "weighting": "simple",
                "weighting_gamma": placeholder(float),
                "hybrid": 0.0,
                "timesteps": "uniform",
                "offset_noise": 0.0,
                "label_dropout": 0.0,
                "accumulate": 1,
                "steps_per_dispatch": 1,
                "ema_decays": (0.995,),
                "max_skipped": 10,
                "log_every": 50,
                "sample_every": 1000,
                "checkpoint_every": 500,
                "keep": 2,
                "wandb": placeholder(str),
            },
            "sample": {
                "sampler": "ddim",
                "steps": 50,
                "grid": "trailing",
                "eta": placeholder(float),
                "variance": placeholder(str),
                "sigma_hat": placeholder(bool),
                "order": placeholder(int),
                "guidance": placeholder(float),
                "guidance_interval": placeholder(tuple),
                "guidance_rescale": placeholder(float),
                "num_timesteps": placeholder(int),
                "beta_start": placeholder(float),
                "beta_end": placeholder(float),
            },
        }
    )
