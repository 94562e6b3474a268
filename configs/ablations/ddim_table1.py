"""DDIM's Table 1 for any trained network: the number of steps S against η and σ̂.

    diffjax ablate --config ablations/ddim_table1 --workdir runs/digits --out sweeps/table1

The README has times and results.
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (
                ("S", tuple((str(steps), {"num_steps": steps}) for steps in (10, 20, 50, 100, 1000))),
                ("η", (*((str(eta), {"eta": eta}) for eta in (0.0, 0.2, 0.5, 1.0)), ("σ̂", {"sigma_hat": True}))),
            ),
            "sample": {"sampler": "ddim", "timestep_spacing": "trailing"},
        }
    )
