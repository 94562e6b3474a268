"""scikit-learn's digits by class, labels dropped one time in ten, sampled with classifier-free guidance.

    python experiments/train.py --config configs/classes_digits.py --workdir runs/classes_digits

The network and the time it takes are those of configs/digits.py; not run here yet.
"""

import ml_collections

from configs import digits


def get_config() -> ml_collections.ConfigDict:
    """The experiment: what it sets apart from the digits without classes."""
    return by_class(digits.get_config())


def by_class(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """An experiment's network told one of ten classes, or none."""
    config.model.num_classes = 10
    config.train.label_dropout = 0.1
    config.sample.guidance = 2.0
    return config
