"""Rules that space the timesteps, for few and for many steps of DDIM with η = 0.

diffjax ablate --config ablations/timestep_rules --workdir runs/digits --out sweeps/rules
"""

import ml_collections

RULES = ("leading", "trailing", "linspace", "quadratic", "exponential")


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    return ml_collections.ConfigDict(
        {
            "kind": "quality",
            "axes": (
                ("S", tuple((str(steps), {"num_steps": steps}) for steps in (5, 10, 20, 50, 100))),
                ("spacing", tuple((rule, {"timestep_spacing": rule}) for rule in RULES)),
            ),
            "sample": {"sampler": "ddim", "eta": 0.0},
        }
    )
