"""Posterior samples of 8×8 digits from 4×4 measurements, by method, number of steps and noise.

    diffjax ablate --config ablations/posterior --workdir runs/digits --out sweeps/posterior

Another measurement: --config.operator=box --config.operator_options="{'height': 0.5}"
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    methods = ("mmps", "pigdm", "dps", "ddrm", "diffpir")
    axes = (
        ("σ_y", tuple((str(std), {"noise_std": std}) for std in (0.05, 0.2))),
        ("method", tuple((name, {"method": name}) for name in methods)),
        ("S", tuple((str(steps), {"num_steps": steps}) for steps in (10, 30, 100))),
    )
    return ml_collections.ConfigDict(
        {"kind": "posterior", "axes": axes, "operator": "downsampling", "operator_options": {"factor": 2}}
    )
