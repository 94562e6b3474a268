"""Rules for the time grid, at few and at more steps, for DDIM with η = 0.

python experiments/ablate.py --config configs/ablations/timestep_rules.py --workdir runs/digits --out sweeps/rules
"""

import ml_collections

from configs.ablations import base

RULES = ("leading", "trailing", "linspace", "quadratic", "exponential")


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.quality()
    config.axes = (
        ("S", tuple((str(steps), {"steps": steps}) for steps in (5, 10, 20, 50, 100))),
        ("grid", tuple((rule, {"grid": rule}) for rule in RULES)),
    )
    return config
