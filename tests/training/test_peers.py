"""Whether other processes are alive, with a coordination service in this process."""

import threading

import jax
import pytest
from jax._src import distributed

from diffjax.errors import UserError
from diffjax.training import peers
from diffjax.training.checkpoints import Checkpoints


class Service:
    """The key-value store of the coordination service, shared by the processes of a test."""

    def __init__(self):
        self.found, self.is_there = {}, True

    def key_value_set(self, key, value, allow_overwrite):
        self.found[key] = value

    def key_value_dir_get(self, folder):
        if not self.is_there:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        return list(self.found.items())


@pytest.fixture
def service(monkeypatch):
    """The service of a run of three processes, of which this one is the second."""
    service = Service()
    monkeypatch.setattr(distributed.global_state, "client", service)
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(peers, "_PERIOD", 0.02)
    monkeypatch.setattr(peers, "_PATIENCE", 1.0)
    return service


@pytest.fixture
def alive(service, monkeypatch):
    """A function: starts to count as process `number`; returns what ends that."""
    started = []

    def start(number):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_index", lambda: number)
            started.append(peers.Peers())
            while f"diffjax/alive/{number}" not in service.found:
                pass
        return started[-1].close

    yield start
    for one in started:
        one.close()


def test_one_process_has_no_peers():
    ours = peers.Peers()
    assert ours.lost_error() is None
    assert ours.call(lambda a, b: a + b, 1, b=2) == 3


def test_those_that_stop_counting_have_ended(alive):
    alive(0)
    end = alive(2)
    ours = peers.Peers()
    assert ours.lost_error() is None
    assert not ours.any_lost
    end()
    assert str(ours.lost_error()).startswith(
        "another process of this run seems to have ended (no answer from process 2); start"
    )
    assert ours.any_lost
    ours.close()


def test_without_the_service_all_others_have_ended(service, alive):
    alive(0)
    ours = peers.Peers()
    service.is_there = False
    assert "no answer from process 0, 2" in str(ours.lost_error())
    ours.close()


def test_a_call_that_waits_for_a_process_ends_with_it(alive):
    alive(0)
    end = alive(2)
    ours, forever = peers.Peers(), threading.Event()
    assert ours.call(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        ours.call(divmod, 7, 0)
    threading.Timer(0.7, end).start()  # after the first look at it
    with pytest.raises(UserError, match="no answer from process 2"):
        ours.call(forever.wait)
    forever.set()
    ours.close()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), ValueError("UNKNOWN: Gloo AllGather failed")]
)
def test_a_failed_save_is_reported_by_who_is_alive_and_not_by_its_error(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with Checkpoints(tmp_path, keep=1) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "is_saving_in_progress", fail)
        with pytest.raises(UserError, match=f"cannot write a checkpoint in .*: {error.args[-1]}; .* Make room"):
            checkpoints.check()
        monkeypatch.setattr(checkpoints._peers, "lost_error", lambda: peers.ended_error("no answer from process 1"))
        with pytest.raises(UserError, match="another process of this run seems to have ended"):
            checkpoints.check()
        monkeypatch.undo()


def test_an_error_in_the_block_is_reported_as_the_loss_it_comes_from(tmp_path, monkeypatch):
    def train(loss):
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            monkeypatch.setattr(checkpoints._peers, "lost_error", lambda: loss)
            raise ValueError("UNKNOWN: Gloo AllReduce failed")

    with pytest.raises(UserError, match="seems to have ended"):
        train(peers.ended_error("no answer from process 1"))
    with pytest.raises(ValueError, match="Gloo"):
        train(None)
