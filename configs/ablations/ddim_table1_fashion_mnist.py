r"""DDIM's Table 1 on the Fashion-MNIST network, with fewer samples where steps are many: the kernel distance leads.

    python experiments/ablate.py --config configs/ablations/ddim_table1_fashion_mnist.py --workdir runs/fashion_mnist \
        --out sweeps/table1_fashion_mnist --config.extractor=FILE

FILE is what experiments/classifier.py writes. Times and results are in the README.
"""

import ml_collections

from configs.ablations import ddim_table1


def get_config() -> ml_collections.ConfigDict:
    """The sweep: that of the digits, but for numbers of samples."""
    config = ddim_table1.get_config()
    config.num = 500
    config.batch_size = 25  # few at a time are quick on a CPU
    (across, steps), (name, etas) = config.axes
    fewer = (("1000", {"steps": 1000, "num": 250}),)
    config.axes = ((across, (*(choice for choice in steps if choice[0] in ("10", "20", "50")), *fewer)), (name, etas))
    config.skip = tuple(((across, "1000"), (name, eta)) for eta in ("0.2", "0.5"))
    return config
