"""Fixed and learned variances by the number of steps: the bound in bits/dim (Improved DDPM, §3.1 and Fig. 6).

    diffjax train --config digits --workdir runs/hybrid --config.train.vlb_weight=0.001
    diffjax ablate --config ablations/variance --workdir runs/hybrid --out sweeps/variance

One network, trained with L_hybrid, is measured with all three variances: its ε̂ is the same, and a fixed variance
ignores the learned one. The chain of S steps visits S timesteps from 0 to T-1, evenly spaced. The images are those held
out of training, or else training images.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    names = ("fixed_small", "fixed_large", "learned_range")
    return ml_collections.ConfigDict(
        {
            "kind": "bits",
            "axes": (
                ("S", tuple((str(steps), {"num_steps": steps}) for steps in (10, 25, 50, 100, 250, 1000))),
                ("variance", tuple((name, {"variance": name}) for name in names)),
            ),
            "sample": {"sampler": "ddpm", "timestep_spacing": "linspace"},
        }
    )
