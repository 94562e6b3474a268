"""CIFAR-10 as DDPM trains on it (Ho et al. 2020, App. B): 35,746,307 parameters, 800,000 steps of 128.

    python experiments/prepare.py --dataset cifar10
    python experiments/train.py --config configs/cifar10.py --workdir runs/cifar10

DDPM took 10.6 hours on a TPU v3-8 (21 steps/s) and reports, of its weights at step 790,000, FID 3.17 against the
training set (50,000 samples, 1000 steps, `fixed_large`). Not run here.

From an npz file: --config.data.source=npz --config.data.dataset= --config.data.path=FILE --config.data.images=x_train
"""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the digits."""
    config = digits.get_config()
    config.data.update(source="tfds", dataset="cifar10", image_shape=(32, 32, 3), flip=True)
    config.schedule.update(beta_start=1e-4, beta_end=0.02)
    config.model.update(
        channels=128, multipliers=(1, 2, 2, 2), num_res_blocks=2, attention_resolutions=(16,), dropout=0.1, groups=32
    )
    config.optimizer.update(learning_rate=2e-4, warmup_steps=5000, decay="constant", clip_norm=1.0)
    config.train.update(
        steps=800_000,
        batch_size=128,
        ema_decays=(0.9999,),
        log_every=100,
        sample_every=10_000,
        checkpoint_every=5000,
    )
    config.sample.update(sampler="ddpm", steps=1000, variance="fixed_large")
    return config
