"""Checkpoints, by orbax: written in the background, complete or not there at all, the newest N kept."""

import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from diffjax.errors import UserError
from diffjax.training.state import TrainState


class Checkpoints:
    """The folder `workdir/checkpoints`: parameters, EMA, the rest of the state, and the data's position.

    Use as a context manager: leaving waits for what is being written.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int | None = None):
        self.directory = Path(workdir).absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._manager.close()

    @property
    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step; None if there is none."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves under `state.step`; returns once the arrays are copied, while the files are still being written."""
        args = {name: ocp.args.StandardSave(part) for name, part in _parts(state).items()}
        args["data"] = ocp.args.JsonSave(data_state)
        self._manager.save(int(state.step), args=ocp.args.Composite(**args))

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint: (state, data position).

        Args:
          like: a state of the same shapes, dtypes and shardings (or its abstract one).

        Raises:
          UserError: a checkpoint that cannot be read, or none.
        """
        args = {name: ocp.args.StandardRestore(_abstract(part)) for name, part in _parts(like).items()}
        restored = self._restore(data=ocp.args.JsonRestore(), **args)
        rest = restored["rest"]
        averages = {decay: restored[_ema_name(decay)] for decay in like.ema_params}
        return TrainState(params=restored["params"], ema_params=averages, **rest), restored["data"]

    def restore_params(self, like: Any, *, ema: float | None) -> Any:
        """The newest checkpoint's parameters alone, on the default device.

        Args:
          like: parameters of the same shapes and dtypes (or abstract ones).
          ema: the decay of the average that is wanted; None: the raw parameters.

        Raises:
          UserError: a checkpoint that cannot be read, or none.
        """
        part = "params" if ema is None else _ema_name(ema)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return self._restore(**{part: ocp.args.StandardRestore(_abstract(like, sharding))})[part]

    def _restore(self, **args):
        if self.latest_step is None:
            raise UserError(f"no checkpoint in {self.directory}: train first")
        try:
            return self._manager.restore(self.latest_step, args=ocp.args.Composite(**args))
        except Exception as error:  # orbax raises many kinds, by what is damaged
            path = self.directory / str(self.latest_step)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"cannot read checkpoint {path}: {reason} — nothing was changed; move that folder away to go on from "
                "the checkpoint before it"
            ) from error


def _parts(state: TrainState) -> dict[str, Any]:
    """What is saved side by side, so that sampling reads the parameters alone."""
    averages = {_ema_name(decay): average for decay, average in state.ema_params.items()}
    rest = {name: getattr(state, name) for name in ("step", "opt_state", "key", "skipped", "history")}
    return {"params": state.params, **averages, "rest": rest}


def _ema_name(decay: float) -> str:
    return f"ema_{decay}"


def _abstract(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding), tree
    )
