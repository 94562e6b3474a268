"""Samplers by the network calls they take (`calls` in the table): S steps of Heun are 2S - 1 of them.

python experiments/ablate.py --config configs/ablations/solvers.py --workdir runs/digits --out sweeps/solvers
"""

import ml_collections

from configs.ablations import base

SAMPLERS = (
    ("ddim", {"sampler": "ddim"}),
    ("heun", {"sampler": "heun"}),
    ("dpm_solver_pp", {"sampler": "dpm_solver_pp", "order": 2}),
    ("pndm", {"sampler": "pndm"}),
    ("ddpm", {"sampler": "ddpm"}),
)


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.quality()
    config.axes = (
        ("S", tuple((str(steps), {"steps": steps}) for steps in (5, 10, 20, 50, 100, 1000))),
        ("sampler", SAMPLERS),
    )
    return config
