"""The `Task` interface: a task defines x_0 and its condition, and how the network is trained and sampled.

Training, sampling and every command use only this interface. A new task is one module: a subclass of `Task` that
is registered in `TASKS`, or that a config names by its import path.
"""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import ml_collections
import numpy as np
import optax

from diffjax import losses, models
from diffjax.data import NO_LABEL
from diffjax.errors import UserError, naming
from diffjax.fields import Field
from diffjax.registry import Registry
from diffjax.sampling import Clip, Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler

TASKS = Registry("task", package="diffjax.tasks")

Loss = Callable[[Any, Mapping[str, jax.Array], jax.Array, jax.Array, jax.Array], jax.Array]
"""(parameters, batch, t `[B]`, keys `[B]`, dropout key) → the loss of each example `[B]`, for `training.step`."""

Restore = Callable[[jax.Array, jax.Array], jax.Array]
"""(condition `[B, H, W, C]` in [-1, 1], keys `[B]`) → restored images `[B, H, W, C]`."""

MakeNetwork = Callable[..., models.Network]
"""(out_channels, **changed fields) → the network of `config.model`."""


class Objective(NamedTuple):
    """The training objective of a denoising network (`losses.denoising`)."""

    target: str = "eps"
    loss_norm: str = "l2"
    huber_delta: float = 1.0
    weights: np.ndarray | None = None
    """`[T]`, the weight of the error at each timestep; None: 1."""
    vlb_weight: float = 0.0
    """λ of L_hybrid; above 0 the network predicts a learned_range variance too."""
    offset_noise: float = 0.0
    label_dropout: float = 0.0
    sigma_data: float = 0.5
    """σ_data of the target "edm"."""

    @classmethod
    def from_config(cls, options: ml_collections.ConfigDict, schedule: NoiseSchedule) -> "Objective":
        """Returns the objective that `config.train` describes.

        Raises:
          UserError: a target that the schedule or a learned variance does not allow, or a weighting with an infinite
            weight.
        """
        if schedule.alpha_bars[-1] == 0.0 and options.target == "eps":
            raise UserError(
                "config.train.target: 'eps' does not determine x0 where alpha_bar = 0, where config.schedule ends; "
                "'x0', 'v', 'flow' or 'edm' do"
            )
        if options.vlb_weight and options.target in ("flow", "edm"):
            raise UserError(
                f"config.train.vlb_weight: {options.vlb_weight} must be 0 for the target {options.target!r}"
            )
        extra = {name: options[name] for name in losses.weighting_options(options.loss_weighting)}
        with naming("config.train.loss_weighting"):
            weights = losses.weights(
                schedule, options.loss_weighting, target=options.target, sigma_data=options.sigma_data, **extra
            )
        same = ("target", "loss_norm", "huber_delta", "vlb_weight", "offset_noise", "label_dropout", "sigma_data")
        return cls(weights=weights, **{name: options[name] for name in same})

    @property
    def distance(self) -> dict[str, Any]:
        """The keyword arguments of `losses.distance`."""
        return {"norm": self.loss_norm, "delta": self.huber_delta}


class Guidance(NamedTuple):
    """Classifier-free guidance, as `guidance.classifier_free` takes it."""

    scale: float
    interval: tuple[float, float] = (0.0, np.inf)
    rescale: float = 0.0


class Sampling(NamedTuple):
    """How a trained network is sampled: `config.sample` as objects."""

    schedule: NoiseSchedule
    """The schedule of training, or another one for a network that is conditioned on the noise level."""
    sampler: Sampler
    clip: Clip
    guidance: Guidance | None = None
    noise_scale: float = 1.0
    """The factor of x_T and of each row's noise. Below 1, restored images lie nearer to the conditional mean if the
    network is accurate there; one with group normalization may take the missing noise for detail, and leave grain."""
    progress: bool | str = False


_NOT_LEARNED = ("parent", "name", "dropout", "dtype", "remat")
"""Fields of a network that its parameters do not depend on."""


class InitialPart(NamedTuple):
    """A part of a task's parameters that is initialised from the parameters of another run."""

    field: str
    """The config field that names the other run."""
    path: str
    """The other run: a workdir, or weights that `interop.load` reads."""
    task: "type[Task]"
    """The task that the other run must have."""
    network: models.Network
    """The network that the other run must have."""
    check_task: "Callable[[Task], None] | None" = None
    """A further check of the other run's task, which raises a `ValueError` or a `UserError`."""

    def check(self, other: "Task") -> None:
        """Checks that the parameters of another run fit this part.

        Raises:
          ValueError: another task or another network; the message lists the fields that differ.
          UserError: from `check_task`.
        """
        if not isinstance(other, self.task):
            wanted = self.task.__name__
            raise ValueError(f"{self.path} holds a run of the task {type(other).__name__}; it must be {wanted}")
        if type(other.network) is not type(self.network):
            kinds = f"a {type(other.network).__name__}, must be a {type(self.network).__name__}"
            raise ValueError(f"the network of {self.path} is {kinds}")
        found, wanted = (models.by_level(network, other.image_shape[0]) for network in (other.network, self.network))
        fields = [name for name in type(self.network).__dataclass_fields__ if name not in _NOT_LEARNED]
        pairs = {name: (getattr(found, name), getattr(wanted, name)) for name in fields}
        different = [f"{name}={has!r}, must be {must!r}" for name, (has, must) in pairs.items() if has != must]
        if different:
            raise ValueError(f"the network of {self.path} is another one: {', '.join(different)}")
        if self.check_task is not None:
            self.check_task(other)


class Task(abc.ABC):
    """The interface of a task.

    Concrete classes are frozen dataclasses with at least the three fields below.
    """

    network: models.Network
    schedule: NoiseSchedule
    image_shape: tuple[int, int, int]

    OPTIONS: ClassVar[Mapping[str, Field]] = {}
    """The fields that the task adds to `config.task`."""
    DEFAULTS: ClassVar[Mapping[str, str]] = {}
    """Fields of other sections whose default is the value of an option: {"sample.num_steps": option}."""
    is_conditional: ClassVar[bool] = False
    """Whether the task restores an image from a condition image; otherwise it generates images from noise alone."""
    samples: ClassVar[bool] = True
    """Whether images are sampled as `config.sample` describes; otherwise they are the output of one network call."""
    enlarges: ClassVar[bool] = False
    """Whether the condition is an enlarged small image, so that networks can be chained into a cascade."""
    clip: ClassVar[float] = 1.0
    """The range of x_0, to which `config.sample.clip = "auto"` clips x̂0."""
    variance: ClassVar[str | None] = None
    """The variance that the network also predicts: "learned_range", "learned" or None."""

    @classmethod
    @abc.abstractmethod
    def from_config(cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork) -> "Task":
        """Builds the task that a config describes.

        Args:
          config: a whole config (`runs.config.resolve`).
          schedule: the schedule to train on.
          network: the function that builds the network of `config.model`.

        Raises:
          UserError: a field whose value this task does not support; the message names it.
        """

    @abc.abstractmethod
    def init(self, key: jax.Array) -> Any:
        """Returns fresh parameters."""

    @abc.abstractmethod
    def loss(self, *, train: bool = True) -> Loss:
        """Returns the training loss; `train=False` turns dropout off."""

    @abc.abstractmethod
    def predictor(
        self, params: Any, *, schedule: NoiseSchedule | None = None, guidance: Guidance | None = None, **condition: Any
    ) -> Predict:
        """Returns `predict(x, t)` for samplers on `schedule` (None: that of training), with the condition bound.

        Raises:
          UserError: a schedule, guidance or condition that the network does not support.
        """

    def at_level(self) -> "Task":
        """Returns the task for tables that call the network at another time than that of x (`network_times`)."""
        return self

    @abc.abstractmethod
    def preview(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> np.ndarray:
        """Returns a picture of images that the network makes, uint8 `[·, ·, 3]`.

        Args:
          examples: a few images of the data, uint8 `[N, H, W, C]`, and their conditions if there are any.
        """

    @property
    def num_classes(self) -> int | None:
        """The number of classes that the network is conditioned on; None for an unconditional network."""
        return models.num_classes(self.network)

    @property
    def predicts_variance(self) -> bool:
        """Whether the network predicts a variance."""
        return self.variance is not None

    @property
    def takes_any_schedule(self) -> bool:
        """Whether the network may be sampled on another schedule than the one it was trained on."""
        return False

    @property
    def trained_timesteps(self) -> np.ndarray | None:
        """The timesteps that the network is trained at, int `[N]`; None: all of the schedule."""
        return None

    def sampled_params(self, params: Any) -> Any:
        """Returns the parameters that sampling uses, without those that training alone uses."""
        return params

    @property
    def initial_parts(self) -> dict[str, "InitialPart"]:
        """The parts of the parameters that are initialised from another run; `init` takes them by name."""
        return {}

    def labels(self, numbers: np.ndarray, chosen: Any = None) -> dict[str, np.ndarray]:
        """Returns the class labels of samples `numbers` `[B]` as a condition; empty for a network without classes.

        Args:
          chosen: the classes, in turn (default: all of them): sample n has the class `chosen[n mod len(chosen)]`.
        """
        if self.num_classes is None:
            return {}
        classes = np.arange(self.num_classes) if chosen is None else np.asarray(chosen)
        return {"label": classes[numbers % len(classes)].astype(np.int32)}

    @property
    def picture_names(self) -> tuple[str, ...]:
        """The names of `pictures`."""
        return ("restored" if self.is_conditional else "samples",)

    def pictures(self, params: Any, how: Sampling, examples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns the pictures that are saved at the end of training, by file name."""
        return {self.picture_names[0]: self.preview(params, how, examples)}

    def wrap_optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns `optimizer`, changed if some of the task's parameters are frozen."""
        return optimizer

    def restore(self, params: Any, how: Sampling, condition: jax.Array, keys: jax.Array) -> jax.Array:
        """Returns an image for each condition, both `[B, H, W, C]` in [-1, 1], of any height and width.

        Raises:
          UserError: a task that generates images.
        """
        raise UserError(f"config.task.name: this run generates images and restores none ({type(self).__name__})")

    def baselines(self, params: Any) -> dict[str, Restore]:
        """Returns the baselines to compare restored images with, by name: parts of the model itself."""
        return {}

    def check_labels(self, labels: np.ndarray, name: Callable[[int], str] = "image {}".format) -> None:
        """Checks labels against the number of classes; a network without classes takes any.

        Args:
          labels: int `[N]`.
          name: number of an image → its name for the message.

        Raises:
          UserError: an image without a label, or a label that is out of range.
        """
        count = self.num_classes
        if count is None:
            return
        without = np.flatnonzero(labels == NO_LABEL)
        if without.size:
            raise UserError(
                f"config.model.num_classes: {count} needs a label of every image, but {without.size} of {len(labels)} "
                f"have none, such as {name(without[0])}"
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= count))
        if wrong.size:
            raise UserError(
                f"config.model.num_classes: {count}, but the label of {name(wrong[0])} is {labels[wrong[0]]} "
                f"({wrong.size} of {len(labels)} labels are outside 0 … {count - 1})"
            )


def refuse(config: ml_collections.ConfigDict, task: str, fields: Mapping[str, Any]) -> None:
    """Checks that the fields of a config that a task does not support have the given values.

    Raises:
      UserError: the first field that has another value.
    """
    for field, wanted in fields.items():
        section, name = field.split(".")
        if (value := config[section].get(name, wanted)) != wanted:
            raise UserError(f"config.{field}: {value!r} must be {wanted!r} for the task {task}")
