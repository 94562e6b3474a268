"""What the network predicts, against how its error is weighted, each trained anew on the digits.

python experiments/ablate.py --config configs/ablations/parameterisation.py --out sweeps/parameterisation
"""

import ml_collections

from configs.ablations import base


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.training("digits")
    config.fields = (("train.steps", 2000),)
    config.axes = (
        ("target", tuple((target, {"train.target": target}) for target in ("eps", "x0", "v"))),
        ("weighting", tuple((name, {"train.weighting": name}) for name in ("simple", "snr", "min_snr", "truncated"))),
        ("loss", tuple((norm, {"train.loss": norm}) for norm in ("l2", "l1"))),
    )
    return config
