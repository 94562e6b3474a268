"""DDIM's Table 2: the error of encoding and decoding images, by the number of steps each way.

    diffjax ablate --config ablations/ddim_table2 --workdir runs/digits --out sweeps/table2

The images are those held out of training, or else training images. For an npz file with a test split:
--config.data.image_key=x_test --config.data.label_key=y_test
"""

import ml_collections


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep."""
    counts = (10, 20, 50, 100, 200, 500, 1000)
    axes = (("S", tuple((str(steps), {"num_steps": steps}) for steps in counts)),)
    return ml_collections.ConfigDict({"kind": "reconstruction", "axes": axes})
