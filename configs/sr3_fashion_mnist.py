r"""Super-resolution of Fashion-MNIST, 8×8 → 32×32 (SR3).

    python experiments/train.py --config configs/sr3_fashion_mnist.py --workdir runs/sr3_fashion_mnist \
        --config.data.path=FILE
    python experiments/restore.py --workdir runs/sr3_fashion_mnist --data images=x_test labels= --num 500 \
        --regression runs/regression_fashion_mnist --sample steps=100 \
        --sample num_timesteps=25,steps=25,beta_start=1e-4,beta_end=0.5 \
        --sample num_timesteps=,beta_start=,beta_end=,steps=2000

Not run here yet.
"""

import ml_collections

from configs import fashion_mnist


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from generation."""
    config = fashion_mnist.get_config()
    config.task.name = "super_resolution"
    config.data.degradation.update(kinds=("bicubic",), factor=4)
    config.schedule.update(num_timesteps=2000, beta_start=1e-6, beta_end=0.01)
    config.train.update(steps=4_500, loss="l1")
    config.sample.update(sampler="ddpm", grid="trailing", steps=100, num_timesteps=100, beta_start=1e-4, beta_end=0.15)
    return config
