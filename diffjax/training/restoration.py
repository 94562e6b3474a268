"""What a config makes of the tasks that have a condition, and pictures of what they restore."""

from functools import partial
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffjax import data, models, schedules, viz
from diffjax.data import degradations
from diffjax.errors import UserError, naming
from diffjax.noise import sample_keys
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps
from diffjax.tasks.conditional import DRAWN, TOLD, Level, Restoration, Restore, Sampling
from diffjax.tasks.deblurring import Deblurring
from diffjax.tasks.generation import normalize
from diffjax.tasks.regression import Regression
from diffjax.tasks.super_resolution import SuperResolution

if TYPE_CHECKING:
    from diffjax.training.setup import Experiment, Training

NAMES = ("generation", "super_resolution", "regression", "deblurring")

DEFAULTS = {
    "task.name": "generation",
    "task.told": "sqrt_alpha_bar",
    "task.drawn": "sqrt_alpha_bar",
    "task.level_scale": 1000.0,
    "data.degradation.sigma": [1.0, 1.0],
    "data.degradation.length": [9.0, 9.0],
    "data.degradation.angle": [0.0, 180.0],
    "data.degradation.radius": [2.0, 2.0],
    "data.degradation.noise": [0.0, 0.0],
    "data.degradation.factor": 4,
}
"""What is on where a config was saved before these fields were there."""

_SHOWN = 8


def task(config: ml_collections.ConfigDict, model: models.UNet) -> Restoration | None:
    """The task that `config.task` names; None for generation.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    if _name(config) == "generation":
        return None
    options = config.task
    for field, value, allowed in (
        ("name", options.name, NAMES),
        ("told", options.told, TOLD),
        ("drawn", options.drawn, DRAWN),
    ):
        if value not in allowed:
            raise UserError(f"config.task.{field}: {value!r} is not one of {', '.join(map(repr, allowed))}")
    if not options.level_scale > 0.0:
        raise UserError(f"config.task.level_scale: {options.level_scale} must be > 0")
    if model.num_classes is not None:
        raise UserError(f"config.model.num_classes: {model.num_classes} must be None: {options.name} knows no classes")
    if config.train.hybrid:
        raise UserError(f"config.train.hybrid: {config.train.hybrid} must be 0: {options.name} learns no variance")
    level = Level(options.told, options.drawn, options.level_scale)
    if options.name == "regression":
        return Regression(model)
    if options.name == "super_resolution":
        return SuperResolution(model, level)
    if model.attention_resolutions:
        raise UserError(
            f"config.model.attention_resolutions: {model.attention_resolutions} must be (): images may be of any size "
            "(config.model.attention_levels and middle_attention know none)"
        )
    predictor = model.clone(channels=options.predictor_channels) if options.predictor_channels else model
    return Deblurring(predictor, model, level, options.frozen)


def inference_schedule(config: ml_collections.ConfigDict, schedule: NoiseSchedule) -> NoiseSchedule:
    """The linear schedule that `config.sample` describes, where those fields are set; else the one trained on.

    Raises:
      UserError: a value that cannot be, or a network that is told t and knows no other schedule.
    """
    options = {name: config.sample.get(name) for name in ("num_timesteps", "beta_start", "beta_end")}
    given = {name: value for name, value in options.items() if value is not None}
    if not given or _name(config) == "regression":
        return schedule
    if _name(config) == "generation" or config.task.told == "t":
        raise UserError(
            f"config.sample.{min(given)}: {given[min(given)]} must be None: a network that is told t knows no "
            "schedule but that of its training"
        )
    if missing := options.keys() - given.keys():
        raise UserError(f"config.sample.{min(missing)}: None, but {min(given)} is set: give all three")
    with naming("config.sample"):
        return schedules.linear(**given)


def degrade(
    config: ml_collections.ConfigDict, example: data.sources.Example, prepare: data.Prepare
) -> data.Prepare | None:
    """What makes a condition of an image, as `config.data.degradation` says; `example` is the source's first.

    Raises:
      UserError: a value that cannot be, or a condition that is missing or means nothing.
    """
    options = dict(config.data.get("degradation", {"kinds": ()}))
    if _name(config) == "generation":
        if options["kinds"]:
            raise UserError(
                f"config.data.degradation.kinds: {options['kinds']} must be (): generation has no condition"
            )
        return None
    if "condition" in example:
        return None
    options = {key: tuple(value) if isinstance(value, (tuple, list)) else value for key, value in options.items()}
    with naming("config.data.degradation"):
        degradations.check(**options)
        made = partial(degradations.degrade, **options)
        made(prepare(example["image"]), None if config.data.resident else np.random.default_rng(0))
    return made


def _name(config: ml_collections.ConfigDict) -> str:
    return config.task.name if "task" in config else "generation"


def objective(config: ml_collections.ConfigDict, experiment: "Experiment", weights: np.ndarray, *, train: bool = True):
    """The loss that `config.train` asks of the experiment's task.

    Raises:
      UserError: what this task's loss does not know, named with its field.
    """
    options, name = config.train, config.task.name
    norm = {"norm": options.loss, "delta": options.huber_delta}
    if options.offset_noise:
        raise UserError(f"config.train.offset_noise: {options.offset_noise} must be 0: {name} knows none")
    if name != "regression" and config.task.told == "t":
        norm |= {"target": options.target, "weights": weights}
    elif options.weighting != "simple" or options.target != "eps":
        field, wanted = ("weighting", "simple") if options.weighting != "simple" else ("target", "eps")
        raise UserError(
            f"config.train.{field}: {options[field]!r} must be {wanted!r} for {name}, unless config.task.told is 't'"
        )
    return experiment.task.loss(experiment.schedule, train=train, **norm)


def freeze(config: ml_collections.ConfigDict, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """`optimizer`, which leaves a predictor alone that `config.task` has frozen: its weights do not decay either."""
    if _name(config) != "deblurring" or not config.task.frozen:
        return optimizer
    parts = {"denoiser": optimizer, "predictor": optax.set_to_zero()}
    return optax.partition(parts, {name: name for name in parts})


def restorer(
    experiment: "Experiment",
    params: Any,
    *,
    steps: Steps | None = None,
    schedule: NoiseSchedule | None = None,
    **options: Any,
) -> Restore:
    """(condition `[B, H, W, C]` in [-1, 1], keys `[B]`) → image, with trained parameters.

    Args:
      steps, schedule: in place of what `config.sample` says.
      options: of `Sampling`: noise_scale, progress.
    """
    how = Sampling(schedule or experiment.sampled, steps or experiment.steps, experiment.target, **options)
    return lambda condition, keys: experiment.task.restore(params, how, condition, keys)


def examples(config: ml_collections.ConfigDict, training: "Training") -> dict[str, np.ndarray]:
    """The first images held out, or else trained on, and their conditions: uint8 `[≤ 8, H, W, C]`."""
    source = training.held_out if len(training.held_out) else training.source
    made = [
        data.prepared(source[n], np.random.default_rng((config.seed, n)), training.prepare, training.degrade)
        for n in range(min(_SHOWN, len(source)))
    ]
    return {name: np.stack([example[name] for example in made]) for name in ("image", "condition")}


def picture(experiment: "Experiment", params: Any, shown: dict[str, np.ndarray]) -> np.ndarray:
    """A row an image: its condition, what is made of it, and the truth; uint8 `[·, ·, 3]`."""
    keys = sample_keys(seed=0, start=0, count=len(shown["image"]))
    restored = restorer(experiment, params)(normalize(jnp.asarray(shown["condition"])), keys)
    columns = np.stack([shown["condition"], viz.to_uint8(restored), shown["image"]], axis=1)
    return viz.grid(columns.reshape(-1, *columns.shape[2:]), columns=3)
