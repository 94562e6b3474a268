"""k-diffusion's `sampling.py` by itself: importing its package would need torchvision, CLIP and more."""

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from unittest import mock

import pytest


def load():
    """The module `k_diffusion.sampling`; the test is skipped where k-diffusion is not installed.

    What else it imports and its samplers do not need (ODE solvers, Brownian trees, pictures) is left empty.
    """
    spec = importlib.util.find_spec("k_diffusion")
    if spec is None:
        pytest.skip("k-diffusion is not installed (pip install --no-deps k-diffusion)")
    package, utils = types.ModuleType("k_diffusion"), types.ModuleType("k_diffusion.utils")
    package.__path__, package.utils = list(spec.submodule_search_locations), utils
    utils.append_dims = lambda x, ndim: x[(...,) + (None,) * (ndim - x.ndim)]
    stubs = {"k_diffusion": package, "k_diffusion.utils": utils}
    for name in ("torchdiffeq", "torchsde"):
        stubs[name] = types.ModuleType(name)
        stubs[name].odeint = None
    with mock.patch.dict(sys.modules, stubs):
        return importlib.import_module("k_diffusion.sampling")
