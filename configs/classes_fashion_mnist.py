r"""Fashion-MNIST by class, labels dropped one time in ten, sampled with classifier-free guidance.

    diffjax train --config classes_fashion_mnist --workdir runs/classes_fashion_mnist \
        --config.data.path=FILE

The network, the file and the training time are those of configs/fashion_mnist.py; not run here yet.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("fashion_mnist")
    config.update({"model": {"num_classes": 10}, "train": {"label_dropout": 0.1}, "sample": {"guidance_scale": 2.0}})
    return config
