r"""DDIM's Table 1 for the Fashion-MNIST network, with fewer samples where there are many steps.

    diffjax ablate --config ablations/ddim_table1_fashion_mnist --workdir runs/fashion_mnist \
        --out sweeps/table1_fashion_mnist --config.extractor=FILE

FILE is a classifier that `diffjax classifier` has written. Compare kernel distances, which need few samples. The README
has times and results.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the sweep: `ddim_table1` with other numbers of samples."""
    config = config_files.load("ablations/ddim_table1")
    config.update(num=500, batch_size=25)  # small batches are fast on a CPU
    (across, steps), (name, etas) = config.axes
    few = tuple((label, fields) for label, fields in steps if label in ("10", "20", "50"))
    config.axes = ((across, (*few, ("1000", {"num_steps": 1000, "num": 250}))), (name, etas))
    config.skip = tuple(((across, "1000"), (name, eta)) for eta in ("0.2", "0.5"))
    return config
