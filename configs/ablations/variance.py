"""Fixed and learned variances by the number of steps: the bound in bits/dim (Improved DDPM, §3.1 and Fig. 6).

    python experiments/train.py --config configs/digits.py --workdir runs/hybrid --config.train.hybrid=0.001
    python experiments/ablate.py --config configs/ablations/variance.py --workdir runs/hybrid --out sweeps/variance

One network, trained with L_hybrid, has all three: its ε̂ is the same, and a fixed variance ignores the learned one. The
chain of S steps is that of S timesteps from 0 to T-1, evenly spaced. Of the held-out images where the run has them.
"""

import ml_collections

from configs.ablations import base


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.bits()
    config.axes = (
        ("S", tuple((str(steps), {"steps": steps}) for steps in (10, 25, 50, 100, 250, 1000))),
        ("variance", tuple((name, {"variance": name}) for name in ("fixed_small", "fixed_large", "learned_range"))),
    )
    return config
