r"""Deblurring by stochastic refinement (Whang et al. 2022) of grey photographs, on patches of 48×48.

    python experiments/train.py --config configs/deblur_small.py --workdir runs/deblur_small \
        --config.data.path=FOLDER
    python experiments/restore.py --workdir runs/deblur_small --data path=OTHER_FOLDER --whole --num 10 --batch-size 1 \
        --tile 8 --best frechet --sample steps=20 --sample steps=20,draws=8 --sample steps=50 --sample steps=10 \
        --sample steps=5 --sample steps=3 --sample steps=20,noise_scale=0.75 --sample steps=20,noise_scale=0.5

FOLDER holds photographs of any size from 48×48 up. Blur is drawn anew each time: Gaussian, motion or defocus, with
noise. Two networks of 0.62 million parameters; 6,000 steps on the 200 photographs of BSDS500's training part took 53
minutes on one CPU core that was shared. Of 10 whole ones of its test part (481×321, other blur each), PSNR, SSIM and
Fréchet distance of tiles of 8×8: input 24.58, 0.636, 0.168; predictor 25.45, 0.690, 0.114; one sample of 20 steps
25.47, 0.686, 0.113; the mean of 8 25.51, 0.690, 0.116; 5 steps 25.31, 0.669, 0.102. With the noise of a sample halved
(noise_scale) 24.00, 0.524, 0.060: it leaves grain.
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
