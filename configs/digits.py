"""scikit-learn's 1,797 handwritten digits, 8×8.

    diffjax train --config digits --workdir runs/digits

Takes 3 min 31 s on 2 CPU cores, pictures included. 1,000 EMA samples of DDIM-50: Fréchet distance in pixel space 0.058
(two halves of the real digits: 0.072), mean top-class probability of an SVM 0.901 (held-out real digits: 0.908).
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    return ml_collections.ConfigDict(
        {
            "data": {"source": "digits", "image_shape": (8, 8, 1)},
            "schedule": {"name": "linear", "num_timesteps": 1000},
            "model": {
                "base_channels": 16,
                "channel_mults": (1, 2),
                "attention_resolutions": (),
                "dropout": 0.0,
                "num_groups": 4,
            },
            "optimizer": {"learning_rate": 2e-3, "warmup_steps": 100, "lr_schedule": "cosine"},
            "train": {
                "steps": 4000,
                "batch_size": 64,
                "ema_decays": (0.995,),
                "log_every": 50,
                "sample_every": 1000,
                "checkpoint_every": 500,
            },
            "sample": {"sampler": "ddim", "num_steps": 50},
        }
    )
