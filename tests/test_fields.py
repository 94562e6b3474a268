import math
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import numpy as np
import pytest
from numpy.typing import ArrayLike

from diffjax import data, losses, samplers, schedules, thresholds, timesteps
from diffjax.fields import REQUIRED, Field, options, shown
from diffjax.training import optimizers, timestep_sampling

REGISTRIES = {
    "schedules": (schedules.SCHEDULES, ()),
    "spacings": (timesteps.SPACINGS, ("schedule", "num_timesteps", "num_steps")),
    "samplers": (samplers.SAMPLERS, ("schedule", "grid")),
    "thresholds": (thresholds.THRESHOLDS, ()),
    "weightings": (losses.WEIGHTINGS, losses.GIVEN),
    "timestep samplings": (timestep_sampling.TIMESTEP_SAMPLINGS, timestep_sampling.GIVEN),
    "optimizers": (optimizers.OPTIMIZERS, ("rate",)),
    "sources": (data.SOURCES, ()),
}  # fmt: skip

BETAS = {
    "num_timesteps": (int, 1000),
    "beta_start": (float, 1e-4),
    "beta_end": (float, 0.02),
    "per_thousand": (bool, False),
}
END = {"end": (int, -1)}
LEVELS = {"sigma_min": (float | None, None), "sigma_max": (float | None, None), "rounded": (bool, False)}
CHURN = {
    "churn": (float, 0.0),
    "churn_sigma_min": (float, 0.0),
    "churn_sigma_max": (float | None, None),
    "churn_noise": (float, 1.0),
}
ADAM = {"b1": (float, 0.9), "b2": (float, 0.999), "eps": (float, 1e-8)}
DPM_SOLVER = {"order": (int, 2), "solver_type": (str, "midpoint"), "eta": (float, 0.0)}
OPTIONS = {
    "schedules": {
        "linear": BETAS,
        "quadratic": BETAS,
        "scaled_linear": {**BETAS, "beta_start": (float, 8.5e-4), "beta_end": (float, 0.012)},
        "sigmoid": {**BETAS, "sigmoid_range": (float, 6.0)},
        "constant": {"num_timesteps": (int, 1000), "beta": (float, 0.02)},
        "jsd": {"num_timesteps": (int, 1000)},
        "cosine": {"num_timesteps": (int, 1000), "s": (float, 0.008), "max_beta": (float, 0.999)},
        "edm": {"num_timesteps": (int, 1000), "sigma_min": (float, 0.002), "sigma_max": (float, 80.0)},
        "flow": {"num_timesteps": (int, 1000), "shift": (float, 1.0)},
        "from_betas": {"betas": (tuple[float, ...], REQUIRED)},
    },
    "spacings": {
        "full": END,
        "leading": {"offset": (int, 0), **END},
        "trailing": {"rounding": (str, "nearest"), "as_diffusers": (bool, False), **END},
        "linspace": {"as_diffusers": (bool, False), **END},
        "uniform": {"stride": (int, REQUIRED), "last": (bool, False), **END},
        "quadratic": {"fraction": (float, 0.8), "last": (bool, False), "allow_repeats": (bool, False), **END},
        "exponential": END,
        "sections": {"counts": (str | tuple[int, ...], REQUIRED), **END},
        "from_sigmas": {"sigmas": (tuple[float, ...], REQUIRED), "rounded": (bool, False)},
        "karras": {"rho": (float, 7.0), **LEVELS, **END},
        "log_snr": {**LEVELS, **END},
        "flow": {"shift": (float, 1.0), **LEVELS, **END},
        "beta": {"alpha": (float, 0.6), "beta": (float, 0.6), **LEVELS, **END},
        "explicit": {"indices": (tuple[int, ...], REQUIRED), **END},
    },
    "samplers": {
        "ddpm": {"variance": (str, "fixed_small"), "last_step_noise": (bool, False)},
        "ddim": {
            "eta": (float, 0.0),
            "sigma": (tuple[float, ...] | None, None),
            "sigma_hat": (bool, False),
            "final_noise": (bool, False),
            "rederive_eps": (bool, True),
            "stride_end": (int | None, None),
        },
        "probability_flow": {"form": (str, "eq13"), "network_at": (str, "source")},
        "learned": {"path": (str, REQUIRED)},
        "analytic": {"path": (str, REQUIRED), "eta": (float, 1.0), "largest": (float, 1.0)},
        "plms": {"order": (int, 4), "first_step": (str, "euler"), "average": (str, "eps")},
        "dpm_solver_pp": {**DPM_SOLVER, "lower_order_final": (bool, False), "euler_at_final": (bool, False)},
        "dpm_solver": {**DPM_SOLVER, "lower_order_final": (bool, False), "euler_at_final": (bool, False)},
        "dpm_solver_pp_singlestep": {**DPM_SOLVER, "lower_order_final": (bool, True)},
        "dpm_solver_singlestep": {**DPM_SOLVER, "lower_order_final": (bool, True)},
        "unipc": {
            "order": (int, 2),
            "solver_type": (str, "bh2"),
            "corrector": (bool, True),
            "disable_corrector": (tuple[int, ...], ()),
            "predict_x0": (bool, True),
            "lower_order_final": (bool, True),
        },
        "deis": {"order": (int, 2), "predict_x0": (bool, False), "lower_order_final": (bool, False)},
        "sa_solver": {
            "predictor_order": (int, 2),
            "corrector_order": (int, 2),
            "tau": (float, 1.0),
            "tau_interval": (tuple[float, ...] | None, None),
            "predict_x0": (bool, True),
            "lower_order_final": (bool, True),
        },
        "euler": CHURN,
        "heun": CHURN,
        "lms": {"order": (int, 4)},
        "er_sde": {"order": (int, 3), "noise_scaling": (str, "er_sde_5")},
        "restart": {
            "intervals": (tuple[tuple[float, float, int, int], ...], ((0.06, 0.3, 5, 2),)),
            "restart_noise": (float, 1.0),
        },
        "dpm2": {"eta": (float, 0.0)},
        "dpm_solver_pp_2s_ancestral": {"eta": (float, 1.0)},
        "dpm_solver_pp_sde": {"eta": (float, 1.0)},
        "pndm": {"average": (str, "eps")},
    },
    "thresholds": {
        "clip": {"limit": (float, 1.0)},
        "dynamic": {"percentile": (float, 0.995), "limit": (float, 1.0), "largest": (float | None, None)},
    },
    "weightings": {
        "simple": {},
        "snr": {},
        "min_snr": {"weighting_gamma": (float, 5.0)},
        "p2": {"weighting_gamma": (float, 1.0)},
        "truncated": {},
        "edm": {},
    },
    "timestep samplings": {
        "uniform": {},
        "antithetic": {},
        "low_discrepancy": {},
        "importance": {},
        "log_normal": {"level_mean": (float, -1.2), "level_std": (float, 1.2)},
    },
    "optimizers": {"adam": ADAM, "adamw": {**ADAM, "weight_decay": (float, 1e-4)}},
    "sources": {
        "digits": {},
        "npz": {"path": (str, REQUIRED), "image_key": (str, "x_train"), "label_key": (str | None, None)},
        "folder": {"path": (str, REQUIRED)},
        "pairs": {"path": (str, REQUIRED), "image_key": (str, "sharp"), "condition_key": (str, "blur")},
        "unknown": {},
        "tfds": {"dataset": (str, REQUIRED), "split": (str, "train"), "data_dir": (str | None, None)},
    },
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_options_of_every_registered_entry(kind):
    registry, given = REGISTRIES[kind]
    found = {name: options(entry, given) for name, entry in registry.items()}
    assert found.keys() == OPTIONS[kind].keys()
    for name, fields in found.items():
        assert {option: (field.type, field.default) for option, field in fields.items()} == OPTIONS[kind][name]
        for option, field in fields.items():
            assert len(field.doc) > 5, (name, option)
            assert field.doc.endswith("."), (name, option)
            if field.default is not REQUIRED:
                assert field.check(field.default) == field.default


def test_types_of_annotations():
    def entry(
        a: int,
        b: Sequence[float],
        c: str | Sequence[int] = "x",
        d: ArrayLike | None = None,
        e: ArrayLike = 0.0,
        f: Literal["p", "q"] = "p",
        g: Callable | None = None,
        h: jax.Array | None = None,
        i: tuple[tuple[int, float], ...] = (),
        dtype: jax.typing.DTypeLike = np.float32,
        *rest,
        k: "bool" = True,
        **others,
    ):
        """Does something.

        Args:
          a: the first,
            on two lines
          b, c: both of them.
          k: whether: a colon.
            Not an option: this line continues.
          d: `code`.

        Raises:
          ValueError: never.
        """

    found = options(entry)
    types = {
        "a": int, "b": tuple[float, ...], "c": str | tuple[int, ...], "d": tuple[float, ...] | None, "e": tuple[float, ...],
        "f": str, "i": tuple[tuple[int, float], ...], "dtype": str, "k": bool,
    }  # fmt: skip
    assert {name: field.type for name, field in found.items()} == types
    assert found["f"].choices == ("p", "q")
    assert found["a"].doc == "The first, on two lines."
    assert found["b"].doc == found["c"].doc == "Both of them."
    assert found["k"].doc == "Whether: a colon. Not an option: this line continues."
    assert found["d"].doc == "Code."
    assert options(entry, ("a", "b")).keys() == types.keys() - {"a", "b"}


@pytest.mark.parametrize(
    ("field", "value", "plain"),
    [
        (Field(float, 0.0, ""), 3, 3.0),
        (Field(int, 0, ""), np.int64(3), 3),
        (Field(tuple[int, ...], (), ""), [1, 2], (1, 2)),
        (Field(int | None, 0, ""), None, None),
        (Field(float, 0.0, "", allow_inf=True), math.inf, math.inf),
        (Field(str, "a", "", choices=schedules.SCHEDULES), "my_lab.schedules:warm", "my_lab.schedules:warm"),
        (Field(tuple[str, ...], (), "", choices=("a", "b")), ("a", "b"), ("a", "b")),
    ],
)
def test_check_returns_the_plain_form(field, value, plain):
    found = field.check(value)
    assert (found, type(found)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (Field(int, 0, "", low=1), 0, "0 must be a whole number ≥ 1"),
        (Field(int, 0, ""), True, "True must be a whole number"),
        (Field(int, 0, ""), 2.0, "2.0 must be a whole number"),
        (Field(int, 0, ""), 10**12, "must be a whole number"),
        (Field(float, 0.0, "", low=0, below=1), 1.0, "1.0 must be a number ≥ 0 and < 1"),
        (Field(float, 0.0, ""), math.nan, "nan must be a number"),
        (Field(float, 0.0, ""), -math.inf, "-inf must be a number"),
        (Field(float, 0.0, ""), "a", "'a' must be a number"),
        (Field(str, "a", ""), "", "'' must be a string"),
        (Field(str | None, "a", "", choices=("a", "b")), "c", "'c' must be one of 'a', 'b' or None"),
        (Field(tuple[int, int], (1, 1), ""), (1,), r"\(1,\) must be a tuple of 2 whole numbers"),
        (Field(tuple[int, ...], (1,), "", length=(1, 3)), (), r"\(\) must be a tuple of whole numbers \(at least 1\)"),
        (Field(str, "a", "", choices=schedules.SCHEDULES), "nothing", "one of 'linear', .* or an import path"),
    ],
)
def test_check_refuses(field, value, words):
    with pytest.raises(ValueError, match=words) as error:
        field.check(value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("wanted", "text", "value"),
    [
        (int, "3", 3),
        (float, "1e-3", 1e-3),
        (float, "2", 2.0),
        (bool, "true", True),
        (int | None, "None", None),
        (int | None, "", None),
        (str, "3", "3"),
        (str | tuple[int, ...], "(10, 20)", (10, 20)),
        (str | tuple[int, ...], "10,20", (10, 20)),
        (str | tuple[int, ...], "ddim50", "ddim50"),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (tuple[str, ...], "('a', 'b')", ("a", "b")),
    ],
)
def test_parse(wanted, text, value):
    assert Field(wanted, REQUIRED, "").parse(text) == value


@pytest.mark.parametrize("text", ["nan", "inf", "x", "1,2", "[", "None", "9" * 5000])
def test_parse_refuses(text):
    with pytest.raises(ValueError, match="must be a number"):
        Field(float, 0.0, "").parse(text)


def test_shown_is_one_short_line():
    assert shown("a") == "'a'"
    assert len(shown("a" * 1000)) <= 80
    assert "\n" not in shown(np.zeros((50, 50)))
