"""Builds the objects that a resolved config describes; errors name the field, and come before any device work."""

import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffjax import data, models, schedules, thresholds, timesteps
from diffjax.data import degradations, subsets
from diffjax.errors import UserError, naming
from diffjax.models import NETWORKS
from diffjax.registry import call
from diffjax.runs import config as schema
from diffjax.runs import resolve
from diffjax.samplers import SAMPLERS, with_network_times
from diffjax.sampling import Clip
from diffjax.schedules import SCHEDULES, NoiseSchedule
from diffjax.steps import Sampler
from diffjax.tasks.base import TASKS, Guidance, Sampling, Task
from diffjax.timesteps import SPACINGS, Grid
from diffjax.training import optimizers, timestep_sampling
from diffjax.training.step import check_batch_size


class Images(NamedTuple):
    """The images of `config.data`."""

    everything: data.Source
    """The images that are trained on and those held out."""
    source: data.Source
    """The images that are trained on."""
    held_out: data.Source
    prepare: data.Prepare
    """Image of the source → image of `config.data.image_shape`."""
    degrade: data.Prepare | None
    """Prepared image → its condition; None if the task has no condition, or if the source provides it."""


class Training(NamedTuple):
    """The images and the optimizer of a training run."""

    images: Images
    learning_rate: optimizers.LearningRate
    optimizer: optax.GradientTransformation


def schedule(section: ml_collections.ConfigDict, name: str = "config.schedule") -> NoiseSchedule:
    """Returns the noise schedule of a section.

    Raises:
      UserError: an invalid value.
    """
    with naming(name):
        made = call(SCHEDULES[section.name], {}, _options(section, schema.SCHEDULE, "name"))
        if not isinstance(made, NoiseSchedule):
            raise ValueError(f"name={section.name!r} made a {type(made).__name__}, not a NoiseSchedule")
        return schedules.zero_terminal_snr(made) if section.zero_terminal_snr else made


def network(section: ml_collections.ConfigDict, out_channels: int, **changes: Any) -> models.Network:
    """Returns the network of `config.model`, with some of its fields changed.

    Raises:
      UserError: an invalid value.
    """
    with naming("config.model"):
        options = _options(section, schema.MODEL, "name") | changes
        if "dtype" in options:
            options["dtype"] = jnp.dtype(options["dtype"])
        return call(NETWORKS[section.name], {"out_channels": out_channels}, options)


def task(config: ml_collections.ConfigDict) -> Task:
    """Returns the task of a config, after checking its networks without computing anything.

    Raises:
      UserError: an invalid value.
    """
    with naming("config.task"):
        kind = TASKS[config.task.name]
    made = kind.from_config(config, schedule(config.schedule), partial(network, config.model))
    params_shape(made)
    return made


def params_shape(task: Task) -> Any:
    """Returns the shapes and dtypes of a task's parameters.

    Raises:
      UserError: fields of the network that are invalid, or do not fit the shape of the images.
    """
    with naming("config.model"):
        try:
            return jax.eval_shape(lambda: task.init(jax.random.key(0)))
        except (TypeError, OverflowError, MemoryError, IndexError, ZeroDivisionError) as error:
            raise ValueError(f"the network cannot be built: {' '.join(str(error).split())[:300]}") from error


def sampling(config: ml_collections.ConfigDict, task: Task) -> Sampling:
    """Returns the schedule, sampler, clipping and guidance that `config.sample` sets for a task.

    Warns if the sampler calls the network at timesteps that it was not trained at.

    Raises:
      UserError: an invalid value, or one that the network does not support.
    """
    options = config.sample
    levels = task.schedule
    if options.schedule is not None:
        if not task.takes_any_schedule:
            raise UserError(
                "config.sample.schedule: must be None: a network that is conditioned on t is sampled on the schedule "
                "it was trained on"
            )
        levels = schedule(options.schedule, "config.sample.schedule")
    made = Sampling(levels, sampler(options, levels), clip(options, task), guidance(options, task))
    variance = options.get("variance")
    if variance in ("learned", "learned_range") and variance != task.variance:
        if task.variance is None:
            raise UserError(
                f"config.sample.variance: {variance!r} needs a network that predicts it (config.train.vlb_weight > 0); "
                "allowed for this one are 'fixed_small', 'fixed_large'"
            )
        raise UserError(
            f"config.sample.variance: {variance!r} is not what this network predicts; allowed are 'fixed_small', "
            f"'fixed_large', {task.variance!r}"
        )
    _warn_of_timesteps(made.sampler, task)
    return made


def _warn_of_timesteps(sampler: Sampler, task: Task) -> None:
    trained = task.trained_timesteps
    unknown = [] if trained is None else np.setdiff1d(sampler.t_net, trained)
    if len(unknown):
        known = ", ".join(map(str, trained[:8])) + (", …" if len(trained) > 8 else "")
        warnings.warn(
            f"config.sample: this network was trained at t = {known} alone, and the sampler also calls it at "
            f"{unknown[-1]}, where its output means nothing",
            stacklevel=3,
        )


def sampler(options: ml_collections.ConfigDict, schedule: NoiseSchedule) -> Sampler:
    """Returns the sampler table of `config.sample`: `sampler`, `num_steps`, `timestep_spacing` and the options of both.

    Raises:
      UserError: an invalid value.
    """
    with naming("config.sample"):
        indices = grid(options, schedule)
        made = call(
            SAMPLERS[options.sampler],
            {"schedule": schedule, "grid": indices},
            _options(options, schema.SAMPLE, "sampler"),
        )
        return with_network_times(made, schedule, options.network_times)


def grid(options: ml_collections.ConfigDict, schedule: NoiseSchedule) -> Grid:
    """Returns the time grid of `config.sample`.

    Raises:
      ValueError: an invalid value.
    """
    spacing = SPACINGS[options.timestep_spacing]
    offered = {
        "schedule": schedule,
        "num_timesteps": schedule.num_timesteps,
        "num_steps": options.num_steps,
    }
    indices = call(spacing, offered, _options(options, schema.SAMPLE, "timestep_spacing"))
    return timesteps.check(indices, schedule.num_timesteps)


def clip(options: ml_collections.ConfigDict, task: Task) -> Clip:
    """Returns the transform of x̂0 that `config.sample.clip` describes.

    Raises:
      UserError: an invalid value.
    """
    if options.clip == "auto":
        return task.clip
    if not isinstance(options.clip, str):
        return options.clip
    with naming("config.sample"):
        return call(thresholds.THRESHOLDS[options.clip], {}, _options(options, schema.SAMPLE, "clip"))


def guidance(options: ml_collections.ConfigDict, task: Task) -> Guidance | None:
    """Returns the classifier-free guidance of `config.sample`, or None.

    Raises:
      UserError: fields that have no effect without a scale, an invalid interval, or a network that does not support
        guidance.
    """
    if options.guidance_scale is None:
        for field, default in (("guidance_interval", None), ("guidance_rescale", 0.0)):
            if options[field] != default:
                raise UserError(
                    f"config.sample.{field}: {options[field]} has no effect while config.sample.guidance_scale is None"
                )
        return None
    interval = options.guidance_interval or (0.0, np.inf)
    if not interval[0] < interval[1]:
        raise UserError(f"config.sample.guidance_interval: {interval} must be two noise levels, the lower one first")
    made = Guidance(options.guidance_scale, interval, options.guidance_rescale)
    # Checks that the task supports guidance; the network is not called.
    task.predictor(None, guidance=made, **task.labels(np.zeros(1, int)))
    return made


def images(config: ml_collections.ConfigDict) -> Images:
    """Returns the images that `config.data` describes, after checking the first one.

    Raises:
      UserError: an invalid value, missing data, or an image that does not fit.
    """
    options = config.data
    with naming("config.data"):
        everything = call(data.SOURCES[options.source], {}, _options(options, schema.DATA, "source"))
        if options.classes is not None:
            everything = subsets.of_classes(everything, options.classes)
        if options.cache_in_memory:
            everything = data.Cached(everything)
        source, held_out = data.split(everything, options.holdout, config.seed)
        same = ("crop_box", "resize", "crop", "resample", "random_flip", "random_rot90")
        prepare = partial(data.prepare, shape=options.image_shape, **{name: options[name] for name in same})
        example = source[0]
        data.prepared(example, None, prepare, None)
        for field, value in (("crop", "random"), ("random_rot90", True)):
            if options.on_device and options[field] == value:
                raise ValueError(f"{field}={value!r} needs on_device=False: images on the devices are prepared once")
    return Images(everything, source, held_out, prepare, _degrade(config, example, prepare))


def check_labels(images: Images, task: Task) -> None:
    """Checks the labels of all images against the classes of a task's network.

    Where the source does not store them apart from its images, checks the number of classes that it declares, and the
    label of the first image.

    Raises:
      UserError: an image without a label, or a label or a number of classes that is out of range.
    """
    if task.num_classes is None:
        return
    source = images.everything
    labels, declared = subsets.known_labels(source), subsets.known_num_classes(source)
    if labels is None and declared is not None and declared > task.num_classes:
        raise UserError(
            f"config.model.num_classes: {task.num_classes} must be ≥ {declared}, the number of classes of "
            "config.data.source"
        )

    with naming("config.data"):
        labels = np.array([source[0]["label"]]) if labels is None else labels
    task.check_labels(labels, partial(name_image, source))


def name_image(source: data.Source, number: int) -> str:
    """Returns "image 7 (/path/of/its/file.png)"; without the path for an image that is not in a file of its own."""
    with naming("config.data"):
        file = source[number].get("file")
    return f"image {number}" + (f" ({file})" if file else "")


def training(config: ml_collections.ConfigDict, task: Task, num_devices: int) -> Training:
    """Returns the images and the optimizer.

    Raises:
      UserError: an invalid value.
    """
    found, options = images(config), config.train
    for field in ("steps", "checkpoint_every", "log_every", "sample_every"):
        if options[field] % options.steps_per_call:
            raise UserError(
                f"config.train.{field}: {options[field]} must be a multiple of config.train.steps_per_call="
                f"{options.steps_per_call}"
            )
    with naming("config.train"):
        sampling_options(config, task)
        if len(set(options.ema_decays)) < len(options.ema_decays):
            raise ValueError(f"ema_decays={options.ema_decays} must be different numbers")
        if config.model.get("dtype") == "float16" and jax.default_backend() == "cpu":
            raise UserError(
                "config.model.dtype: 'float16' cannot be trained on the CPU, which lacks its matrix products; "
                "'bfloat16' and 'float32' can"
            )
        check_batch_size(options.batch_size, num_devices, options.grad_accumulation_steps)
        if options.batch_size > len(found.source):
            raise ValueError(f"batch_size={options.batch_size} is more than the {len(found.source)} images there are")
    check_labels(found, task)
    return Training(found, *optimizer(config, task))


def sampling_options(config: ml_collections.ConfigDict, task: Task) -> dict[str, Any]:
    """Returns the options of `config.train.timestep_sampling`, checked.

    Raises:
      ValueError: an invalid option, or times between the timesteps for a loss that needs whole ones.
    """
    kind = config.train.timestep_sampling
    options = _options(config.train, schema.TRAIN, "timestep_sampling")
    real = timestep_sampling.has_real_times(kind, task.schedule, options)
    if real and (task.predicts_variance or task.takes_any_schedule):
        why = "a learned variance" if task.predicts_variance else "a network that is not conditioned on t"
        raise ValueError(f"timestep_sampling={kind!r} gives times between the timesteps, which {why} does not allow")
    return options


def step_options(config: ml_collections.ConfigDict, task: Task) -> dict[str, Any]:
    """Returns the keyword arguments of `make_train_step` that a config sets, but for its data and steps per call.

    Raises:
      ValueError: as `sampling_options`.
    """
    options = config.train
    return {
        "schedule": task.schedule,
        "batch_size": options.batch_size,
        "timestep_sampling": options.timestep_sampling,
        "sampling_options": sampling_options(config, task),
        "grad_accumulation_steps": options.grad_accumulation_steps,
        "shard_optimizer": options.shard_optimizer,
    }


def optimizer(
    config: ml_collections.ConfigDict, task: Task
) -> tuple[optimizers.LearningRate, optax.GradientTransformation]:
    """Returns the learning rate and the optimizer of `config.optimizer`, for a task's parameters.

    Raises:
      UserError: an invalid value.
    """
    options = config.optimizer
    with naming("config.optimizer"):
        rate = optimizers.learning_rate(
            options.learning_rate,
            warmup_steps=options.warmup_steps,
            lr_schedule=options.lr_schedule,
            num_steps=config.train.steps,
        )
        made = optimizers.optimizer(
            options.name,
            rate,
            grad_clip_norm=options.grad_clip_norm,
            **_options(options, schema.OPTIMIZER, "name"),
        )
    wrapped = task.wrap_optimizer(made)
    if config.train.shard_optimizer and wrapped is not made:
        raise UserError(
            "config.train.shard_optimizer: True needs a task that trains all of its parameters; this one keeps "
            "some fixed"
        )
    return rate, wrapped


def _degrade(
    config: ml_collections.ConfigDict, example: data.sources.Example, prepare: data.Prepare
) -> data.Prepare | None:
    options = resolve.to_dict(config.data.degradation)
    if not TASKS[config.task.name].is_conditional:
        if options["kinds"]:
            raise UserError(
                f"config.data.degradation.kinds: {options['kinds']} must be () for the task {config.task.name}, which "
                "has no condition"
            )
        return None
    if "condition" in example:
        return None
    with naming("config.data.degradation"):
        degradations.check(**options)
        made = partial(degradations.degrade, **options)
        made(prepare(example["image"]), None if config.data.on_device else np.random.default_rng(0))
    return made


def _options(section: ml_collections.ConfigDict, spec: schema.Section, field: str) -> dict[str, Any]:
    """Returns the options in a section that belong to the entry that `field` names."""
    named = spec.named[field]
    known = resolve.options_of(named.registry[section[field]], named.given)
    return {name: section[name] for name in known if name in section}
