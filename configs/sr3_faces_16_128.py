r"""Super-resolution of faces, 16×16 → 128×128, as SR3 trains on it (Saharia et al. 2021), from a folder of faces.

    python experiments/train.py --config configs/sr3_faces_16_128.py --workdir runs/sr3_faces_16_128 \
        --config.data.path=FOLDER

97,807,491 parameters: the network of Janspiry's code (the paper's own has 550 million).
SR3 reports PSNR 23.04, SSIM 0.65, consistency 2.68 on CelebA-HQ (regression: 23.96, 0.69, 2.71) after a million steps
on FFHQ. Not run here.
"""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the digits."""
    config = digits.get_config()
    config.task.update(name="super_resolution", level_scale=1.0)
    config.data.update(source="folder", path="data/ffhq", image_shape=(128, 128, 3), fit="resize", flip=True, workers=8)
    config.data.degradation.update(kinds=("bicubic",), factor=8)
    config.schedule.update(num_timesteps=2000, beta_start=1e-6, beta_end=0.01)
    config.model.update(
        channels=64,
        multipliers=(1, 2, 4, 8, 8),
        num_res_blocks=2,
        attention_resolutions=(16,),
        dropout=0.2,
        groups=32,
        norm_eps=1e-5,
        downsample_padding=(1, 1),
        freq_shift=0,
        activate_embedding=False,
        qkv_bias=False,
        time_channels=(64, 256, 64),
    )
    config.optimizer.update(learning_rate=1e-4, warmup_steps=10_000, decay="constant")
    config.train.update(
        steps=1_000_000,
        batch_size=256,
        loss="l1",
        ema_decays=(0.9999,),
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
    )
    config.sample.update(sampler="ddpm", steps=2000)
    return config
