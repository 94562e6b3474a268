r"""Deblurring by stochastic refinement (Whang et al. 2022) of grey photographs, on patches of 48×48.

    python experiments/train.py --config configs/deblur_small.py --workdir runs/deblur_small \
        --config.data.path=FOLDER
    python experiments/restore.py --workdir runs/deblur_small --data path=OTHER_FOLDER --whole --num 20 --batch-size 1 \
        --sample steps=50 --sample steps=50,draws=8 --sample steps=50,noise_scale=0.5 --sample steps=20 \
        --sample steps=10 --sample steps=5 --sample steps=2

FOLDER holds photographs of any size from 48×48 up. Blur is drawn anew each time: Gaussian, motion or defocus, with
noise. Not run here yet.
"""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the digits."""
    config = digits.get_config()
    config.task.update(name="deblurring", predictor_channels=16)
    config.data.update(
        source="folder",
        path="data/photographs",
        image_shape=(48, 48, 1),
        fit="crop",
        crop="random",
        flip=True,
        turn=True,
        cached=True,
    )
    config.data.degradation.update(
        kinds=("gaussian", "motion", "defocus"),
        sigma=(1.0, 3.0),
        length=(5.0, 15.0),
        radius=(1.5, 4.0),
        noise=(0.0, 4.0),
    )
    config.schedule.update(num_timesteps=1000, beta_start=1e-4, beta_end=0.02)
    config.model.update(
        channels=16, multipliers=(1, 2, 4), num_res_blocks=1, attention_resolutions=(), middle_attention=False, groups=8
    )
    config.optimizer.update(learning_rate=1e-3, warmup_steps=200)
    config.train.update(
        steps=6000, batch_size=8, loss="l1", ema_decays=(0.999,), sample_every=1000, checkpoint_every=500
    )
    config.sample.update(sampler="ddim", steps=50, eta=1.0)
    return config
