"""Progressive distillation of a trained generation network into few steps (Salimans & Ho 2022; `learn.distillation`).

The student has its teacher's network and begins with its weights. It is trained at the N timesteps of the trailing grid
alone, and sampled by DDIM (η = 0) on that grid. Each stage halves the steps; its student is the next stage's teacher.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from diffjax import learn, losses
from diffjax.errors import UserError, naming
from diffjax.fields import REQUIRED, Field
from diffjax.sampling import Predict
from diffjax.schedules import NoiseSchedule
from diffjax.tasks.base import TASKS, InitialPart, Loss, MakeNetwork, Objective, Task, refuse
from diffjax.tasks.generation import Generation


@TASKS.register(name="distillation")
@dataclasses.dataclass(frozen=True)
class Distillation(Generation):
    """Generation by a student of few steps; the parameters are `{"student", "teacher"}`, the teacher's are constant."""

    num_steps: int = 16
    teacher: str | None = None
    """The workdir or the weights that both begin with; None: fresh parameters."""
    teacher_target: str = "eps"
    clip_teacher: bool = True

    OPTIONS: ClassVar[Mapping[str, Field]] = Generation.OPTIONS | {
        "teacher": Field(
            str,
            REQUIRED,
            "The teacher: the workdir of a generation or distillation run, whose first EMA is used, or weights that "
            "interop.load reads. It has the student's network, schedule and image shape.",
        ),
        "teacher_target": Field(
            str | None,
            None,
            "What the teacher predicts; None: what the student does, config.train.target.",
            choices=losses.TARGETS,
        ),
        "num_steps": Field(
            int,
            16,
            "N, the student's steps, half of its teacher's; also the default of config.sample.num_steps.",
            low=1,
        ),
        "clip_teacher": Field(bool, True, "Whether the teacher's x̂0 is clipped to [-1, 1], as in sampling."),
    }
    DEFAULTS: ClassVar[Mapping[str, str]] = {"sample.num_steps": "num_steps"}

    @classmethod
    def from_config(
        cls, config: ml_collections.ConfigDict, schedule: NoiseSchedule, network: MakeNetwork
    ) -> "Distillation":
        refuse(config, "distillation", {"train.vlb_weight": 0.0})
        student, options = Generation.from_config(config, schedule, network), config.task
        target = options.teacher_target or config.train.target
        if target == "eps" and schedule.alpha_bars[-1] == 0.0:
            raise UserError(
                "config.task.teacher_target: 'eps' does not determine x0 where alpha_bar = 0, where config.schedule "
                "ends"
            )
        with naming("config.task"):
            learn.StepPairs.of(schedule, options.num_steps)
        fields = {field.name: getattr(student, field.name) for field in dataclasses.fields(student)}
        own = {name: options[name] for name in ("num_steps", "teacher", "clip_teacher")}
        return cls(**fields, **own, teacher_target=target)

    @property
    def initial_parts(self) -> dict[str, InitialPart]:
        if self.teacher is None:
            return {}
        part = InitialPart("config.task.teacher", self.teacher, Generation, self.network, self._check_teacher)
        return {"teacher": part}

    def init(self, key: jax.Array, *, teacher: Any = None) -> Any:
        """Returns the parameters of both, equal at first: those of a trained `teacher`, or fresh ones."""
        teacher = super().init(key) if teacher is None else teacher
        return {"student": teacher, "teacher": jax.tree.map(jnp.copy, teacher)}

    def loss(self, *, train: bool = True) -> Loss:
        """Returns the loss `learn.progressive`; each t is moved up to the start of a step of the student.

        Noise, labels and their dropout are as in generation, and the same for both; the teacher has no dropout.
        """
        objective, pairs = self.objective, learn.StepPairs.of(self.schedule, self.num_steps)

        def per_example(params, batch, t, keys, dropout_key):
            x0, noise, condition = self._example(batch, keys, train=train)
            return learn.progressive(
                self.schedule,
                pairs,
                self._teacher.predictor(params["teacher"], **condition),
                self._network(params["student"], condition, dropout_key, train=train),
                x0,
                t,
                noise,
                target=objective.target,
                clip=self.clip if self.clip_teacher else None,
                weights=objective.weights,
                sigma_data=objective.sigma_data,
                **objective.distance,
            )

        return per_example

    @property
    def trained_timesteps(self) -> np.ndarray:
        """The starts of the student's steps."""
        return learn.StepPairs.of(self.schedule, self.num_steps).start

    def predictor(self, params: Any, **options: Any) -> Predict:
        """Returns `predict(x, t)` of the student."""
        return super().predictor(self.sampled_params(params), **options)

    def sampled_params(self, params: Any) -> Any:
        return None if params is None else params["student"]

    def wrap_optimizer(self, optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
        """Returns `optimizer`, with no effect on the teacher, not even by weight decay."""
        parts = {"student": optimizer, "teacher": optax.set_to_zero()}
        return optax.partition(parts, {name: name for name in parts})

    @property
    def _teacher(self) -> Generation:
        """The task whose predictions are distilled."""
        return Generation(
            network=self.network,
            schedule=self.schedule,
            image_shape=self.image_shape,
            objective=Objective(target=self.teacher_target, sigma_data=self.objective.sigma_data),
            timestep_scale=self.timestep_scale,
            noise_conditioning=self.noise_conditioning,
        )

    def _check_teacher(self, other: Task) -> None:
        """Checks that a run is a teacher of this student.

        Raises:
          UserError: another image shape, schedule, target or number of steps; the message names the field.
        """
        if other.image_shape != self.image_shape:
            raise UserError(
                f"config.data.image_shape: {self.image_shape} must be {other.image_shape}, the shape of {self.teacher}"
            )
        ours, theirs = self.schedule.alpha_bars, other.schedule.alpha_bars
        if len(ours) != len(theirs) or not np.allclose(ours, theirs, rtol=1e-5, atol=1e-12):
            raise UserError(f"config.schedule: must be that of {self.teacher}, which has other values of alpha_bar")
        for name in ("timestep_scale", "noise_conditioning"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                raise UserError(f"config.task.{name}: {ours!r} must be {theirs!r}, that of {self.teacher}")
        has = other.objective
        if has.target != self.teacher_target:
            raise UserError(
                f"config.task.teacher_target: {self.teacher_target!r} must be {has.target!r}, what {self.teacher} "
                "predicts"
            )
        if has.target == "edm" and has.sigma_data != self.objective.sigma_data:
            raise UserError(
                f"config.train.sigma_data: {self.objective.sigma_data} must be {has.sigma_data}, that of {self.teacher}"
            )
        if isinstance(other, Distillation) and other.num_steps != 2 * self.num_steps:
            raise UserError(
                f"config.task.num_steps: {self.num_steps} must be half of {other.num_steps}, the steps of "
                f"{self.teacher}"
            )
