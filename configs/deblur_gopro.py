r"""Deblurring of GoPro (Nah et al. 2017) as Whang et al. (2022) train on it, on patches of 128×128.

    python experiments/train.py --config configs/deblur_gopro.py --workdir runs/deblur_gopro \
        --config.data.path=GOPRO/train
    python experiments/restore.py --workdir runs/deblur_gopro --data path=GOPRO/test --whole --num 1111 --batch-size 1 \
        --sample steps=500 --sample steps=10,draws=8

The folder holds SCENE/blur/*.png and SCENE/sharp/*.png. The paper has a predictor of 26 million parameters, a denoiser
of 7 million, and reports FID 4.04 (T = 500), PSNR 33.23 (T = 10, averaged) and 33.07 of the predictor alone.
Learning rate, batch and the widths of the levels are guesses. Not run here.
"""

import ml_collections

from configs import deblur_small


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the small one."""
    config = deblur_small.get_config()
    config.task.predictor_channels = 64
    config.data.update(source="pairs", path="data/gopro/train", image_shape=(128, 128, 3), cached=False, workers=8)
    config.data.degradation.kinds = ()
    config.schedule.update(num_timesteps=2000, beta_start=1e-6, beta_end=0.01)
    config.model.update(channels=32, multipliers=(1, 2, 3, 4), num_res_blocks=3)
    config.optimizer.update(learning_rate=1e-4, warmup_steps=10_000, decay="constant")
    config.train.update(
        steps=1_000_000,
        batch_size=32,
        ema_decays=(0.9999,),
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
    )
    config.sample.update(steps=500)
    return config
