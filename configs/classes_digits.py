"""scikit-learn's digits by class, labels dropped one time in ten, sampled with classifier-free guidance.

    diffjax train --config classes_digits --workdir runs/classes_digits

4,000 steps took 5 min 7 s on one CPU core beside other work. Of 2,000 samples of DDIM-50 a classifier assigns 97.7 % to
their class without guidance (Fréchet distance 0.048), and 99.95 % at scale 2 (0.244); the README has more.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("digits")
    config.update({"model": {"num_classes": 10}, "train": {"label_dropout": 0.1}, "sample": {"guidance_scale": 2.0}})
    return config
