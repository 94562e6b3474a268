"""Noise schedules, each trained on the digits.

diffjax ablate --config ablations/schedules --out sweeps/schedules
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    names = ("linear", "cosine", "sigmoid", "quadratic")
    return ml_collections.ConfigDict(
        {
            "kind": "training",
            "base": "digits",
            "axes": (
                ("steps", tuple((str(steps), {"train.steps": steps}) for steps in (2000, 4000))),
                ("schedule", tuple((name, {"schedule.name": name}) for name in names)),
            ),
        }
    )
