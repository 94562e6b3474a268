"""From a config to the objects it names. Every error names the field, and comes before any device work."""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffjax import data, guidance, losses, models, samplers, schedules, timesteps
from diffjax.errors import UserError, naming
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Steps
from diffjax.tasks import generation
from diffjax.tasks.conditional import Restoration
from diffjax.training import draws, guided, optimizers, restoration
from diffjax.training.calls import call, named
from diffjax.training.step import Loss, check_batch_size

SCHEDULES = {
    function.__name__: function
    for function in (
        schedules.linear,
        schedules.cosine,
        schedules.quadratic,
        schedules.scaled_linear,
        schedules.sigmoid,
        schedules.constant,
        schedules.jsd,
    )
}
GRIDS = {
    function.__name__: function
    for function in (
        timesteps.leading,
        timesteps.trailing,
        timesteps.linspace,
        timesteps.quadratic,
        timesteps.exponential,
    )
}
SAMPLERS = {
    function.__name__: function
    for function in (
        samplers.ddpm,
        samplers.ddim,
        samplers.probability_flow,
        samplers.heun,
        samplers.dpm_solver_pp,
        samplers.plms,
        samplers.pndm,
    )
}
KNOBS = ("eta", "variance", "sigma_hat", "order")
"""Fields of `config.sample` that one sampler or another takes; None is its default."""

SOURCES = {function.__name__: function for function in (data.digits, data.npz, data.folder, data.pairs, data.tfds)}
_PREPARED = ("window", "fit", "crop", "resample", "flip", "turn")
"""Fields of `config.data` that say what is done to each image; the source takes what is left."""
_PIPELINE = ("source", "image_shape", "holdout", "resident", "workers", "cached", "degradation")


class Experiment(NamedTuple):
    """What a config describes, checked."""

    schedule: NoiseSchedule
    model: models.UNet
    params_shape: Any
    """The parameters' shapes and dtypes."""
    image_shape: tuple[int, int, int]
    steps: Steps
    target: str
    """What the network predicts: of `losses.TARGETS`."""
    learns_variance: bool
    """Whether it predicts a learned_range variance besides."""
    ema_decay: float
    """Of the average that is sampled from."""
    label_dropout: float
    """How often it was told no label."""
    guide: Callable[[Predict], Predict] | None
    """What guides it when it is sampled from (`guidance.classifier_free`), or nothing."""
    task: Restoration | None = None
    """What restores from a condition; None is generation."""
    sampled: NoiseSchedule | None = None
    """The schedule that `steps` are on, where it is not the one trained on (`config.sample.beta_start` …)."""


class Training(NamedTuple):
    """What training needs beside the experiment."""

    source: data.Source
    held_out: data.Source
    prepare: data.Prepare
    """What is done to each image of the source."""
    degrade: data.Prepare | None
    """What makes its condition of it; None: nothing, or the source has both."""
    learning_rate: optimizers.LearningRate
    optimizer: optax.GradientTransformation


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Schedule, model and sampler: what sampling needs.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    with naming("config.schedule"):
        schedule = call(SCHEDULES, **config.schedule)
    with naming("config.train.target"):
        named(dict.fromkeys(losses.TARGETS), "target", config.train.target)
    if schedule.alpha_bars[-1] == 0.0 and config.train.target == "eps":
        raise UserError(
            f"config.schedule: {config.schedule.name!r} ends at alpha_bar = 0, where eps cannot be sampled from; "
            "config.train.target 'x0' or 'v' can"
        )
    if not config.train.hybrid >= 0.0:
        raise UserError(f"config.train.hybrid: {config.train.hybrid} must be ≥ 0")
    learns_variance = config.train.hybrid > 0.0
    if len(image_shape := tuple(config.data.image_shape)) != 3:
        raise UserError(f"config.data.image_shape: {image_shape} must be (height, width, channels)")
    with naming("config.model"):
        model = _model(config.model, image_shape[-1], learns_variance)
        task = restoration.task(config, model)
        init = partial(init_params, model) if task is None else task.init
        params_shape = jax.eval_shape(lambda: init(image_shape, jax.random.key(0)))
    sampled = restoration.inference_schedule(config, schedule)
    steps = sampler(sampled, config.sample)
    check_variance(config.sample.variance, learns_variance)
    decays = _checked_decays(config.train.ema_decays)
    label_dropout = config.train.get("label_dropout", 0.0)
    if not 0.0 <= label_dropout < 1.0:
        raise UserError(f"config.train.label_dropout: {label_dropout} must be within [0, 1)")
    if label_dropout and model.num_classes is None:
        raise UserError(f"config.train.label_dropout: {label_dropout} needs classes (config.model.num_classes is None)")
    guide = guided.guide(config.sample, schedule, num_classes=model.num_classes, label_dropout=label_dropout)
    return Experiment(
        schedule, model, params_shape, image_shape, steps, config.train.target, learns_variance, decays[0],
        label_dropout, guide, task, sampled,
    )  # fmt: skip


def check_variance(variance: str | None, learns_variance: bool, field: str = "config.sample.variance") -> None:
    """Whether the network has the variance: None is the sampler's own.

    Raises:
      UserError: one that it does not predict, or that there is not.
    """
    allowed = ("fixed_small", "fixed_large", "learned_range")[: 2 + learns_variance]
    if variance not in (None, "", *allowed):
        raise UserError(
            f"{field}: {variance!r} needs a network that predicts it (trained with config.train.hybrid > 0); allowed "
            f"for this one are {', '.join(map(repr, allowed))}"
        )


def init(experiment: Experiment, key: jax.Array, *, predictor: Any = None) -> Any:
    """Fresh parameters of an experiment, but for a predictor's that has been trained (`trained.predictor`)."""
    if experiment.task is not None:
        given = {} if predictor is None else {"predictor": predictor}
        return experiment.task.init(experiment.image_shape, key, **given)
    return init_params(experiment.model, experiment.image_shape, key)


def init_params(model: models.UNet, image_shape: tuple[int, ...], key: jax.Array) -> Any:
    """Fresh parameters of a model for images `[H, W, C]`: float32, or float64 for a model that computes in it."""
    one = jnp.zeros((1,), jnp.int32)
    condition = {} if model.num_classes is None else {"label": one}
    params = model.init(key, jnp.zeros((1, *image_shape)), one, **condition)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, model.dtype)), params)


def predictor(experiment: Experiment, params: Any, **condition: jax.Array) -> Predict:
    """The trained network as samplers ask it, whatever it was trained to predict; `condition` as `models.predictor`.

    Raises:
      UserError: a network that restores: it is nothing without the image to be restored.
    """
    if experiment.task is not None:
        raise UserError("config.task.name: this network restores images; experiments/restore.py asks it")
    return _heard(experiment, models.predictor(experiment.model, params, **condition))


def sample_predictor(
    experiment: Experiment, params: Any, numbers: np.ndarray, chosen: Sequence[int] | None = None
) -> Predict:
    """`predictor` for samples `numbers` `[B]`: told their classes (`generation.labels`), guided as the config says."""
    condition = generation.labels(experiment.model, numbers, chosen)
    if experiment.guide is None:
        return predictor(experiment, params, **condition)
    pairs = guidance.both(condition["label"], models.NO_LABEL)
    return _heard(experiment, experiment.guide(models.predictor(experiment.model, params, label=pairs)))


def _heard(experiment: Experiment, predict: Predict) -> Predict:
    variance = "learned_range" if experiment.learns_variance else None
    return guidance.from_target(predict, experiment.schedule, experiment.target, variance=variance)


def objective(config: ml_collections.ConfigDict, experiment: Experiment, *, train: bool = True) -> Loss:
    """The loss that `config.train` asks for; with `train=False` without dropout.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    options = config.train
    with naming("config.train.loss"):
        named(dict.fromkeys(losses.NORMS), "loss", options.loss)
    with naming("config.train.weighting"):
        table = losses.weights(
            experiment.schedule, options.weighting, target=options.target, gamma=options.weighting_gamma
        )
    if not options.huber_delta > 0.0:
        raise UserError(f"config.train.huber_delta: {options.huber_delta} must be > 0")
    if not options.offset_noise >= 0.0:
        raise UserError(f"config.train.offset_noise: {options.offset_noise} must be ≥ 0")
    if experiment.task is not None:
        return restoration.objective(config, experiment, table, train=train)
    return generation.loss(
        experiment.schedule,
        experiment.model,
        offset_noise=options.offset_noise,
        label_dropout=experiment.label_dropout,
        train=train,
        target=options.target,
        norm=options.loss,
        delta=options.huber_delta,
        weights=table,
        hybrid=options.hybrid,
    )


def training(config: ml_collections.ConfigDict, image_shape: tuple[int, ...], num_devices: int) -> Training:
    """Source and optimizer: what training needs besides.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    source, held_out, prepare = images(config)
    degrade = restoration.degrade(config, source[0], prepare)
    classes = config.model.num_classes
    if classes is not None and not 0 <= (label := source[0]["label"]) < classes:
        raise UserError(f"config.model.num_classes: {classes}, but the first image's label is {label}")
    counts = ("steps", "checkpoint_every", "log_every", "sample_every", "keep", "accumulate", "steps_per_dispatch")
    for field, least in (*((field, 1) for field in counts), ("max_skipped", 0)):
        if not (isinstance(config.train[field], int) and config.train[field] >= least):
            raise UserError(f"config.train.{field}: {config.train[field]!r} must be a whole number ≥ {least}")
    for field in ("steps", "checkpoint_every", "log_every", "sample_every"):
        if config.train[field] % config.train.steps_per_dispatch:
            raise UserError(
                f"config.train.{field}: {config.train[field]} must be a multiple of "
                f"config.train.steps_per_dispatch={config.train.steps_per_dispatch}"
            )
    with naming("config.train.timesteps"):
        named(dict.fromkeys(draws.KINDS), "timesteps", config.train.timesteps)
    with naming("config.train.batch_size"):
        check_batch_size(config.train.batch_size, num_devices, config.train.accumulate)
        if config.train.batch_size > len(source):
            raise ValueError(f"batch_size={config.train.batch_size} exceeds the source's {len(source)} images")
    with naming("config.optimizer"):
        rate = optimizers.learning_rate(
            config.optimizer.learning_rate,
            warmup_steps=config.optimizer.warmup_steps,
            decay=config.optimizer.decay,
            num_steps=config.train.steps,
        )
        optimizer = optimizers.optimizer(config.optimizer.name, rate, clip_norm=config.optimizer.clip_norm)
    return Training(source, held_out, prepare, degrade, rate, restoration.freeze(config, optimizer))


def images(config: ml_collections.ConfigDict) -> tuple[data.Source, data.Source, data.Prepare]:
    """(what is trained on, what is held out, what is done to each image): all that `config.data` says.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    with naming("config.data"):
        options = {k: v for k, v in config.data.items() if k not in (*_PREPARED, *_PIPELINE)}
        everything = call(SOURCES, name=config.data.source, kind="source", **options)
        if config.data.get("cached"):
            everything = data.Cached(everything)
        source, held_out = data.split(everything, config.data.holdout, config.seed)
        prepare = partial(
            data.prepare,
            shape=tuple(config.data.image_shape),
            **{field: config.data[field] for field in _PREPARED if field in config.data},
        )
        prepare(source[0]["image"])
        if config.data.resident and (config.data.crop == "random" or config.data.get("turn")):
            which = "crop='random'" if config.data.crop == "random" else "turn=True"
            raise ValueError(f"{which} needs resident=False: what stays on the devices is cropped and turned once")
        if config.data.workers < 0:
            raise ValueError(f"workers={config.data.workers} must be ≥ 0")
    return source, held_out, prepare


def sampler(schedule: NoiseSchedule, options, *, grid: Callable[[int], timesteps.Grid] | None = None) -> Steps:
    """The table that `config.sample` asks for: `sampler`, `steps`, `grid`, and the sampler's own knobs.

    Args:
      schedule: to sample on.
      options: those fields.
      grid: of a number of steps, in place of the rule that `options.grid` names.

    Raises:
      UserError: a value that cannot be, named with its field.
    """
    with naming("config.sample"):
        rule = grid or partial(named(GRIDS, "grid", options.grid), schedule.num_timesteps)
        knobs = {name: value for name, value in options.items() if name in KNOBS}
        with naming("config.sample.steps"):
            indices = rule(options.steps)
        return call(SAMPLERS, schedule=schedule, grid=indices, name=options.sampler, kind="sampler", **knobs)


def _checked_decays(decays) -> tuple[float, ...]:
    decays = tuple(decays)
    if not decays or len(set(decays)) < len(decays) or not all(0.0 <= decay < 1.0 for decay in decays):
        raise UserError(f"config.train.ema_decays: {decays} must be one or more different numbers within [0, 1)")
    return decays


def _model(options, channels: int, learns_variance: bool) -> models.UNet:
    options = {name: tuple(value) if isinstance(value, (list, tuple)) else value for name, value in options.items()}
    if unknown := options.keys() - inspect.signature(models.UNet).parameters.keys():
        raise ValueError(f"{sorted(unknown)[0]!r} is no option of the UNet")
    dtype = options.get("dtype", "float32")
    if dtype not in ("float32", "bfloat16", "float16", "float64"):
        raise ValueError(f"dtype={dtype!r} is not one of 'float32', 'bfloat16', 'float16', 'float64'")
    out_channels = (2 if learns_variance else 1) * channels
    if options.get("out_channels") not in (None, out_channels):
        raise ValueError(
            f"out_channels={options['out_channels']} must be {out_channels}, or None: x has {channels} channels, and "
            f"a variance is {'' if learns_variance else 'not '}learned (config.train.hybrid)"
        )
    return models.UNet(**{**options, "dtype": jnp.dtype(dtype), "out_channels": out_channels})
