"""Noise schedules, each trained anew on the digits.

python experiments/ablate.py --config configs/ablations/schedules.py --out sweeps/schedules
"""

import ml_collections

from configs.ablations import base


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.training("digits")
    config.axes = (
        ("steps", (("2000", {"train.steps": 2000}), ("4000", {"train.steps": 4000}))),
        ("schedule", tuple((name, {"schedule.name": name}) for name in ("linear", "cosine", "sigmoid", "quadratic"))),
    )
    return config
