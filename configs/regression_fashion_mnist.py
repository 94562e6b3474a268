r"""The regression baseline of SR3: the same UNet, 8×8 → 32×32 in one network call.

    diffjax train --config regression_fashion_mnist --workdir runs/regression_fashion_mnist \
        --config.data.path=FILE

It is trained with L2, as in the SR3 paper. 600 steps took 20 minutes on a shared CPU core. On 500 test images: PSNR
23.74, SSIM 0.810, consistency 2.2, Fréchet distance 0.280, measured as configs/sr3_fashion_mnist.py says.
"""

import ml_collections

from diffjax.runs import config_files


def get_config() -> ml_collections.ConfigDict:
    """Returns the fields that the experiment sets."""
    config = config_files.load("sr3_fashion_mnist")
    config.update({"task": {"name": "regression"}, "train": {"steps": 600, "loss_norm": "l2"}})
    return config
