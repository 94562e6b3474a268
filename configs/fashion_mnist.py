"""Fashion-MNIST, 28×28 padded to 32×32, from an npz file with x_train (uint8 [60000, 28, 28]) and y_train.

    python experiments/train.py --config configs/fashion_mnist.py --workdir runs/fashion_mnist --config.data.path=FILE

Not run here yet.
"""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the digits."""
    config = digits.get_config()
    config.data.update(
        source="npz",
        path="data/fashion_mnist.npz",
        images="x_train",
        labels="y_train",
        image_shape=(32, 32, 1),
        fit="pad",
        flip=True,
    )
    config.model.update(channels=32, multipliers=(1, 2, 2), attention_resolutions=(8,), dropout=0.1, groups=8)
    config.optimizer.update(learning_rate=5e-4, warmup_steps=500)
    config.train.update(steps=20_000, ema_decays=(0.999,), sample_every=2500, checkpoint_every=1000)
    return config
