"""Networks, in Flax Linen: `init` and `apply` are pure functions."""

from diffjax.models.apply import predictor
from diffjax.models.layers import NO_LABEL
from diffjax.models.unet import UNet

__all__ = ["NO_LABEL", "UNet", "predictor"]
