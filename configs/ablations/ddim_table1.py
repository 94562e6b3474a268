"""DDIM's Table 1 on a network of one's own: the number of steps S against η, and σ̂.

    python experiments/ablate.py --config configs/ablations/ddim_table1.py --workdir runs/digits --out sweeps/table1

Times and results are in the README.
"""

import ml_collections

from configs.ablations import base


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.quality()
    config.axes = (
        ("S", tuple((str(steps), {"steps": steps}) for steps in (10, 20, 50, 100, 1000))),
        ("η", (*((str(eta), {"eta": eta}) for eta in (0.0, 0.2, 0.5, 1.0)), ("σ̂", {"sigma_hat": True}))),
    )
    return config
