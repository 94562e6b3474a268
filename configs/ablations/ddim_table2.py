"""DDIM's Table 2: the error of encoding and decoding, by the number of steps each way.

    python experiments/ablate.py --config configs/ablations/ddim_table2.py --workdir runs/digits --out sweeps/table2

Of the held-out images where the run has them; for an npz with a test split: --config.images=x_test
--config.labels=y_test.
"""

import ml_collections

from configs.ablations import base


def get_config() -> ml_collections.ConfigDict:
    """The sweep."""
    config = base.reconstruction()
    config.axes = (("S", tuple((str(steps), {"steps": steps}) for steps in (10, 20, 50, 100, 200, 500, 1000))),)
    return config
