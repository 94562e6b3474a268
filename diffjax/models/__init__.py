"""Networks in Flax Linen: `init` and `apply` are pure functions; a config names a network by its name in `NETWORKS`."""

from diffjax.models.apply import predictor
from diffjax.models.base import NETWORKS, Network, count_params, init_params, num_classes
from diffjax.models.dit import DiT
from diffjax.models.layers import NO_LABEL
from diffjax.models.mlp import MLP
from diffjax.models.unet import UNet, by_level

__all__ = [
    "MLP",
    "NETWORKS",
    "NO_LABEL",
    "DiT",
    "Network",
    "UNet",
    "by_level",
    "count_params",
    "init_params",
    "num_classes",
    "predictor",
]
