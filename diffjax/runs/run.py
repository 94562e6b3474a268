"""`Run`: a trained network and everything needed to sample from it, for commands, sweeps, reports and notebooks.

run = dj.runs.load("runs/digits")
images = run.sample(64, seed=0)                    # uint8 [64, H, W, C], sampled as in config.sample
x_0 = dj.sample(run.sampler, run.predictor(), dj.initial_noise(keys, run.image_shape), keys, clip=run.clip)
"""

import dataclasses
import os
from collections.abc import Container, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import jax
import ml_collections
import numpy as np

from diffjax import devices, models, sampling
from diffjax.data.pixels import to_uint8
from diffjax.errors import UserError, naming
from diffjax.files import to_path
from diffjax.registry import Registry
from diffjax.runs import build, resolve, saved
from diffjax.runs.config import SAMPLE
from diffjax.sampling import Clip, Predict
from diffjax.schedules import NoiseSchedule
from diffjax.steps import Sampler
from diffjax.tasks.base import InitialPart, Restore, Sampling, Task
from diffjax.training.checkpoints import Checkpoints

WEIGHTS = Registry("reader of weights", package="diffjax.interop")
"""Functions path → `Run` that load weights of other libraries."""


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Run:
    """A config, the task that it describes, and trained parameters."""

    config: ml_collections.ConfigDict
    """Resolved, with every field; for an imported network, with the fields that its files determine."""
    task: Task
    params: Any
    step: int | None = None
    """The training step of the parameters; None: unknown."""
    ema: float | None = None
    """The EMA decay of the parameters; None if they are not averaged, or if it is unknown."""
    source: str = ""
    """Where the parameters were read from."""
    preferred: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Defaults for the options of samplers, which `with_options(sampler=…)` uses where the sampler has them."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule that the network was trained on."""
        return self.task.schedule

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of an image."""
        return self.task.image_shape

    @property
    def network(self) -> models.Network:
        """The network; the denoiser, if the task has several networks."""
        return self.task.network

    @cached_property
    def sampling(self) -> Sampling:
        """The schedule, sampler, clipping and guidance of `config.sample`."""
        return build.sampling(self.config, self.task)

    @property
    def sampler(self) -> Sampler:
        """The sampler table of `config.sample`."""
        return self.sampling.sampler

    @property
    def clip(self) -> Clip:
        """The clipping of x̂0 in `config.sample`."""
        return self.sampling.clip

    @property
    def parameters(self) -> str:
        """The name of the parameters in a protocol: "EMA 0.999", or "raw"."""
        return "raw" if self.ema is None else f"EMA {self.ema}"

    @property
    def sampled_params(self) -> Any:
        """The parameters that sampling uses: all of them, but for a distilled student beside its teacher."""
        return self.task.sampled_params(self.params)

    @property
    def num_params(self) -> int:
        """The number of parameters that sampling uses."""
        return models.count_params(self.sampled_params)

    def with_options(self, **options: Any) -> "Run":
        """Returns the run with changed fields of `config.sample`: `run.with_options(num_steps=20, eta=1.0)`.

        Raises:
          UserError: an unknown field, or an invalid value.
        """
        if "sampler" in options:
            options = self._preferred_by(options["sampler"]) | options
        changed = resolve.override(self.config, {f"sample.{name}": value for name, value in options.items()})
        made = dataclasses.replace(self, config=changed)
        made.sampling  # noqa: B018  (checks the values)
        return made

    def predictor(self, **condition: Any) -> Predict:
        """Returns `predict(x, t)` for `dj.sample`: ε̂ or a `Prediction`, whatever the network was trained to predict.

        Args:
          condition: `label=`, int `[B]`, for a network with classes; `image=`, `[B, H, W, C]` in [-1, 1], for one that
            restores images.
        """
        return self._sampled_task.predictor(self.params, schedule=self.sampling.schedule, **condition)

    def sample(
        self,
        num: int,
        *,
        seed: int = 0,
        label: int | Sequence[int] | None = None,
        batch_size: int = 250,
        progress: bool = False,
    ) -> np.ndarray:
        """Samples images as `config.sample` describes, with guidance if it sets a guidance scale.

        Args:
          num: the number of images; sample n of a seed is the same for any `num` and `batch_size`, to float rounding.
          seed: the seed of the noise.
          label: the class, or the classes in turn, for a network with classes (default: all classes in turn).
          batch_size: images at a time, rounded up to a multiple of the number of devices.
          progress: whether to show a progress bar.

        Returns:
          uint8 `[num, H, W, C]`.

        Raises:
          UserError: a network that restores images, an unknown label, num < 1.
        """
        if num < 1 or batch_size < 1:
            raise UserError(f"num={num} and batch_size={batch_size} must be ≥ 1")
        size = devices.round_up(min(num, batch_size))
        batches = self.batches(num, seed=seed, label=label, batch_size=size, progress=progress)
        return np.concatenate([images for _, images in batches])

    def batches(
        self,
        num: int,
        *,
        seed: int = 0,
        label: int | Sequence[int] | None = None,
        batch_size: int = 250,
        skip: Container[int] = (),
        progress: bool = False,
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yields (index of the first sample, images uint8 `[≤ batch_size, H, W, C]`), as `sampling.sample_many` does.

        Each of several processes yields its own batches. The other arguments are those of `sample`.

        Args:
          skip: batches that begin at one of these indices are left out.
        """
        how, chosen = self.sampling, self._chosen(label)

        def predict(numbers):
            condition = self.task.labels(numbers, chosen)
            return self._sampled_task.predictor(self.params, guidance=how.guidance, **condition)

        batches = sampling.sample_many(
            how.sampler,
            predict,
            self.image_shape,
            seed=seed,
            num=num,
            batch_size=batch_size,
            clip=how.clip,
            skip=skip,
            per_batch=True,
            progress=progress,
        )
        for start, x in batches:
            self._check_finite(start, np.asarray(x))
            yield start, to_uint8(x)

    def labels(self, num: int, label: int | Sequence[int] | None = None) -> np.ndarray | None:
        """Returns the classes of samples 0 … num - 1, int32 `[num]`; None for a network without classes."""
        return self.task.labels(np.arange(num), self._chosen(label)).get("label")

    def restorer(self, *, noise_scale: float = 1.0, progress: bool | str = False) -> Restore:
        """Returns a function (condition `[B, H, W, C]` in [-1, 1], keys `[B]`) → restored images, of any size.

        Raises:
          UserError: a network that generates images.
        """
        if not self.task.is_conditional:
            self.task.restore(self.params, self.sampling, None, None)
        how = self.sampling._replace(noise_scale=noise_scale, progress=progress)
        return lambda condition, keys: self.task.restore(self.params, how, condition, keys)

    @property
    def _sampled_task(self) -> Task:
        return self.task if self.config.sample.network_times == "exact" else self.task.at_level()

    def _check_finite(self, start: int, x: np.ndarray) -> None:
        bad = np.flatnonzero(~np.all(np.isfinite(x), axis=tuple(range(1, x.ndim))))
        if bad.size:
            why = "so are its parameters" if not _are_finite(self.params) else "its parameters are finite"
            raise UserError(
                f"sample {start + bad[0]} of {self.source or 'this network'} is not finite, like {bad.size} of "
                f"{len(x)} in its batch; {why}"
            )

    def __repr__(self) -> str:
        name = self.config.get("task", {}).get("name", "generation")
        where = f"{self.source!r}, " if self.source else ""
        step = "" if self.step is None else f", step {self.step}"
        ema = "" if self.ema is None else f", EMA {self.ema}"
        shape = "×".join(map(str, self.image_shape))
        return (
            f"Run({where}{name} of {shape}, {type(self.network).__name__} of {self.num_params:,} parameters{step}{ema})"
        )

    def _preferred_by(self, sampler: str) -> dict[str, Any]:
        """Returns the preferred options that a sampler has."""
        known = resolve.named_options({"sampler": sampler}, SAMPLE, "sampler", SAMPLE.named["sampler"], "config.sample")
        return {name: value for name, value in self.preferred.items() if name in known}

    def _chosen(self, label: int | Sequence[int] | None) -> list[int] | None:
        if label is None:
            return None
        if self.task.is_conditional:
            raise UserError("label: this run restores images, and has no classes")
        count = self.task.num_classes
        chosen = [label] if isinstance(label, (int, np.integer)) else list(label)
        for one in chosen or [None]:
            if not (count and isinstance(one, (int, np.integer)) and 0 <= one < count):
                allowed = f"allowed is 0 … {count - 1}" if count else "this network has no classes"
                raise UserError(f"label={one}: {allowed}")
        return chosen


def load(workdir: str | os.PathLike, *, ema: float | bool | None = None) -> Run:
    """Loads the newest readable checkpoint of a training run.

    Args:
      workdir: a folder that `diffjax train` has written.
      ema: the decay of the parameters' average, one of `config.train.ema_decays` (default: the first); False: the
        parameters themselves.

    Raises:
      UserError: no such workdir, no checkpoint that can be read, an invalid config, an unknown decay.
    """
    return of_config(saved.load(workdir), workdir, ema=ema)


def load_any(path: str | os.PathLike) -> Run:
    """Loads a workdir like `load`, or weights of another library like `interop.load`.

    Raises:
      UserError: neither is there, or it cannot be read.
    """
    found = to_path(path)
    if found.is_file() or (found / "model_index.json").exists():
        return WEIGHTS["interop"](path)
    if not (found / "config.json").exists():
        why = "holds no run" if found.exists() else "does not exist"
        raise UserError(f"{path} {why}; it must be a folder that `diffjax train` has written, or weights")
    return load(path)


def load_part(part: InitialPart) -> Run:
    """Loads the run whose parameters initialise a part of another run's.

    Raises:
      UserError: there is none, or it does not fit; the message begins with the field that names it.
    """
    try:
        found = load_any(part.path)
    except UserError as error:
        raise UserError(f"{part.field}: {error}") from error
    with naming(part.field):
        part.check(found.task)
    return found


def of_config(config: ml_collections.ConfigDict, workdir: str | os.PathLike, *, ema: float | bool | None = None) -> Run:
    """Loads a run like `load`, but with the given config, such as the workdir's with other fields of `config.sample`.

    Raises:
      UserError: as `load`.
    """
    task = build.task(config)
    build.sampling(config, task)
    decay = check_decay(config, ema)
    with Checkpoints(workdir) as checkpoints:
        step, params = checkpoints.restore_params(build.params_shape(task), ema=decay)
    if not _are_finite(params):
        raise UserError(f"the parameters of {workdir} at step {step} are not all finite: train it again")
    return Run(config=config, task=task, params=params, step=step, ema=decay, source=str(to_path(workdir)))


def _are_finite(params: Any) -> bool:
    return all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(params))


def check_decay(config: Mapping[str, Any], ema: float | bool | None) -> float | None:
    """Returns the decay that `ema` stands for, or None for the parameters themselves.

    Raises:
      UserError: a decay that the run does not have.
    """
    decays = tuple(config["train"]["ema_decays"])
    if ema is None or ema is True:
        return decays[0]
    if ema is False:
        return None
    if ema not in decays:
        raise UserError(f"ema={ema} is not one of the run's decays {', '.join(map(str, decays))}")
    return ema
