"""scikit-learn's digits by class, labels dropped one time in ten, sampled with classifier-free guidance.

    python experiments/train.py --config configs/classes_digits.py --workdir runs/classes_digits

4,000 steps: 5 min 7 s on one CPU core beside other work. 2,000 samples, DDIM-50, in a classifier's opinion: unguided
97.7 % of their class, Fréchet distance 0.048; at scale 2 99.95 % and 0.244 (the README has more).
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
