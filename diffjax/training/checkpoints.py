"""Checkpoints, by orbax: written in the background, complete or not there at all, the newest N kept."""

import contextlib
import functools
import json
import os
import re
import shutil
import sys
import textwrap
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffjax.errors import UserError, writing
from diffjax.files import to_path
from diffjax.training.peers import Peers
from diffjax.training.state import TrainState


class Checkpoints:
    """The folder `workdir/checkpoints`: parameters, EMA, the rest of the state, and the data's position.

    Use as a context manager: leaving waits for what is being written. Among several processes each makes the same
    calls, and all must see the same folder.

    Args:
      keep: how many to keep, for the one run that writes; it clears away what a kill left half-written. None: only
        reads, and changes nothing.
    """

    def __init__(self, workdir: str | os.PathLike, *, keep: int | None = None):
        self.directory = to_path(workdir).absolute() / "checkpoints"
        self._writes = keep is not None
        self._manager = None
        self._peers = Peers() if self._writes else None
        if self._writes or self.directory.is_dir():
            options = ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                create=self._writes,
                cleanup_tmp_directories=self._writes,
                async_options=ocp.options.AsyncOptions(barrier_sync_fn=_barrier),
            )
            with writing(self.directory):
                self._manager = ocp.CheckpointManager(self.directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind, error, traceback) -> None:
        if self._peers is None:
            if self._manager is not None:
                self._manager.close()
            return
        try:
            if error is None:
                self._call(self._manager.close)
                return
            # An error of any type may come from the end of another process.
            if isinstance(error, Exception) and not isinstance(error, UserError) and (lost := self._peers.lost_error()):
                raise lost from error
            if not self._peers.any_lost:
                with contextlib.suppress(Exception):  # the first error is raised
                    self._peers.call(self._manager.close)
        finally:
            self._peers.close()

    @property
    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step; None if there is none."""
        return self._manager and self._manager.latest_step()

    def save(self, state: TrainState, data_state: dict[str, Any]) -> None:
        """Saves under `state.step`; returns once the arrays are copied, while the files are still being written.

        A state whose last step was skipped, or whose parameters or averages are not finite, is not saved, with a
        warning: it must not take the place of a good one.

        Raises:
          UserError: this checkpoint, or the one before it, cannot be written.
        """
        parts = _parts(state)
        if reason := _why_ruined(state):
            if jax.process_index() == 0:
                warnings.warn(f"no checkpoint of step {int(state.step)} is written: {reason}", stacklevel=2)
            return
        args = {name: ocp.args.StandardSave(_everywhere(part)) for name, part in parts.items()}
        sums = {name: _checksum(part) for name, part in parts.items()} | {"position": _checksum_of_json(data_state)}
        args["data"] = ocp.args.JsonSave({"position": data_state, "checksums": sums})
        self._call(self._manager.save, int(state.step), args=ocp.args.Composite(**args))

    def check(self) -> None:
        """Sees whether the writing in the background has failed; does not wait for it.

        Raises:
          UserError: it has.
        """
        self._call(self._check)

    def set_aside_ruined(self, step: int) -> None:
        """Moves the checkpoint of `step` to `workdir/damaged`, if there is one, and another one before it.

        For a checkpoint from which no step could be taken: all steps after it have been skipped.
        """
        self.wait()
        steps = self._manager.all_steps()
        if step in steps and min(steps) < step:
            self._set_aside([step])

    def wait(self) -> None:
        """Waits until everything that was saved is on disk.

        Raises:
          UserError: it cannot be written.
        """
        self._call(self._manager.wait_until_finished)

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest checkpoint that can be read: (state, data position).

        Damaged ones that are newer are warned of and, in the run that writes, moved to `workdir/damaged`.

        Args:
          like: a state of the same shapes, dtypes and shardings (or its abstract one).

        Raises:
          UserError: none can be read (nothing is changed then), or there is none.
        """
        step, restored = self._restore({name: _abstract(part) for name, part in _parts(like).items()})
        if self._writes and step != self.latest_step:
            self._set_aside([newer for newer in self._manager.all_steps() if newer > step])
        rest = restored["rest"]
        averages = {decay: restored[_ema_name(decay)] for decay in like.ema_params}
        return TrainState(params=restored["params"], ema_params=averages, **rest), restored["data"]["position"]

    def restore_params(self, like: Any, *, ema: float | None) -> tuple[int, Any]:
        """The newest checkpoint that can be read: (step, its parameters alone), on the default device.

        Args:
          like: parameters of the same shapes and dtypes (or abstract ones).
          ema: the decay of the average that is wanted; None: the raw parameters.

        Raises:
          UserError: none can be read, or there is none.
        """
        part = "params" if ema is None else _ema_name(ema)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        step, restored = self._restore({part: _abstract(like, sharding)})
        return step, restored[part]

    def _restore(self, parts: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """(step, parts and data) of the newest checkpoint that can be read and is what was saved."""
        if self.latest_step is None:
            raise UserError(f"no checkpoint in {self.directory}: train first")
        steps = sorted(self._manager.all_steps(), reverse=True)
        _drop_late_callbacks()
        failures = []
        for step in steps:
            try:
                restored = self._read(step, parts)
            except Exception as error:  # orbax raises many kinds, by what is damaged
                if self._peers and (lost := self._peers.lost_error()):
                    raise lost from error
                failures.append(f"cannot read checkpoint {self.directory / str(step)}: {_reason(error)}")
                last = error
                continue
            for failure in failures:
                warnings.warn(f"{failure}; using {self.directory / str(step)} instead", stacklevel=3)
            if jax.process_count() > 1:
                multihost_utils.assert_equal(step, "the processes do not read the same checkpoint")
            return step, restored
        others = f" (nor can {', '.join(map(str, steps[1:]))} be)" if steps[1:] else ""
        raise UserError(f"{failures[0]}{others} — nothing was changed") from last

    def _read(self, step: int, parts: dict[str, Any]) -> dict[str, Any]:
        args = {name: ocp.args.StandardRestore(part) for name, part in parts.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore(), **args))
        sums = restored["data"]["checksums"]
        found = {name: _checksum(restored[name]) for name in parts}
        found["position"] = _checksum_of_json(restored["data"]["position"])
        if bad := [name for name in found if found[name] != sums[name]]:
            raise ValueError(f"{bad[0]} is not what was saved (its checksum differs)")
        return {name: restored[name] for name in (*parts, "data")}

    def _set_aside(self, steps: list[int]) -> None:
        """Moves checkpoints out of the way, so that their steps can be saved again."""
        if jax.process_index() == 0:
            aside = self.directory.parent / "damaged"
            with writing(aside):
                aside.mkdir(exist_ok=True)
                for step in steps:
                    target = aside / str(step)
                    number = 1
                    while target.exists():
                        number += 1
                        target = aside / f"{step}.{number}"
                    (self.directory / str(step)).rename(target)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()

    def _check(self) -> None:
        if not self._manager.is_saving_in_progress():
            self._manager.wait_until_finished()

    def _call(self, function: Callable[..., Any], *args: Any, **options: Any) -> None:
        """Calls a function of the manager, which may raise what writing in the background has raised.

        Raises:
          UserError: a checkpoint cannot be written (its unfinished files are removed), or another process has ended:
            orbax and JAX raise errors of many types then.
        """
        try:
            self._peers.call(function, *args, **options)
        except Exception as error:  # orbax and TensorStore raise many kinds
            raise self._peers.lost_error() or self._not_saved(error) from error

    def _not_saved(self, error: Exception) -> UserError:
        with contextlib.suppress(Exception):
            for unfinished in self.directory.glob("*orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
            self._manager.reload()
        good = (
            f"that of step {self.latest_step} is whole" if self.latest_step is not None else "there is none before it"
        )
        return UserError(
            f"cannot write a checkpoint in {self.directory}: {_reason(error)}; {good}. Make room, then the same "
            "command resumes from there"
        )


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for the other processes, as orbax does, but not where a write of this process has failed.

    orbax would wait first, for processes that in turn wait at another barrier, and raise the error minutes later.
    """
    if sys.exception() is None:
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def has_checkpoint(workdir: str | os.PathLike) -> bool:
    """Returns whether a workdir has a complete checkpoint; several processes need not call it together."""
    return bool(ocp.utils.checkpoint_steps_paths(to_path(workdir).absolute() / "checkpoints"))


@functools.cache
def _drop_late_callbacks() -> None:
    """Silences what Python prints where TensorStore's threads report to an event loop that a failed read has closed."""
    before = sys.unraisablehook

    def hook(error):
        if not (isinstance(error.exc_value, RuntimeError) and str(error.exc_value) == "Event loop is closed"):
            before(error)

    sys.unraisablehook = hook


def _parts(state: TrainState) -> dict[str, Any]:
    """What is saved side by side, so that sampling reads the parameters alone."""
    averages = {_ema_name(decay): average for decay, average in state.ema_params.items()}
    rest = {name: getattr(state, name) for name in ("step", "opt_state", "key", "skipped", "history")}
    return {"params": state.params, **averages, "rest": rest}


def _why_ruined(state: TrainState) -> str:
    """Returns why a state is not worth saving; "" if it is."""
    if int(state.skipped):
        return "its last step was skipped"
    if not _all_finite((state.params, state.ema_params)):
        return "its parameters or their averages are not all finite"
    return ""


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _ema_name(decay: float) -> str:
    return f"ema_{decay}"


def _abstract(tree: Any, sharding: jax.sharding.Sharding | None = None) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding or leaf.sharding), tree
    )


def _everywhere(tree: Any) -> Any:
    """What every process holds a copy of, as orbax wants to see it: one array over all devices. Copies nothing."""
    if jax.process_count() == 1:
        return tree
    sharding = NamedSharding(Mesh(np.array(jax.devices()), ("copies",)), PartitionSpec())

    def array(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array(jax.random.key_data(leaf)), impl=jax.random.key_impl(leaf))
        copies = [shard.data for shard in leaf.addressable_shards]
        return jax.make_array_from_single_device_arrays(leaf.shape, sharding, copies)

    return jax.tree.map(array, tree)


def _checksum(tree: Any) -> int:
    """CRC-32 of all leaves: what TensorStore's files do not carry themselves."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        total = zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data, total)
    return total


def _checksum_of_json(value: Any) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def _reason(error: Exception) -> str:
    """The gist of an error in one line; TensorStore writes pages around it."""
    text = str(error).strip() or type(error).__name__
    if found := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(found[1]))
    if "tree structures do not match" in text:
        return "it holds another state (saved with another diffjax or optax? parameters and averages can still be used)"
    return getattr(error, "strerror", None) or textwrap.shorten(text.splitlines()[0], 200, placeholder=" …")
