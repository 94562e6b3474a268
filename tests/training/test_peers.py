"""Whether other processes are alive, with a coordination service in this process."""

import itertools
import json
import threading
import time

import jax
import pytest
from jax._src import distributed

from diffjax.errors import UserError
from diffjax.training import peers
from diffjax.training.checkpoints import Checkpoints


class Service:
    """The key-value store of the coordination service, shared by the processes of a test."""

    def __init__(self):
        self.found, self.frozen, self.is_there = {}, set(), True

    def key_value_set(self, key, value, allow_overwrite=False):
        if key not in self.frozen:
            self.found[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        if key not in self.found:
            raise jax.errors.JaxRuntimeError(f"DEADLINE_EXCEEDED: no {key} in {milliseconds} ms")
        return self.found[key]

    def wait_at_barrier(self, name, milliseconds):
        self.barrier = name

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
def first_call(monkeypatch):
    monkeypatch.setattr(peers, "_calls", itertools.count())


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


@pytest.fixture
def ended(monkeypatch):
    """The messages with which the process would have ended."""
    messages = []
    monkeypatch.setattr(peers, "_SILENCE", 0.5)
    monkeypatch.setattr(peers, "exit_at_once", messages.append)
    return messages


def test_a_process_that_waits_for_a_silent_one_ends(alive, ended, service):
    alive(2)
    alive(0)
    ours = peers.Peers()
    time.sleep(1.0)
    assert not ended
    service.frozen.add("diffjax/alive/0")
    time.sleep(1.0)
    ours.close()
    assert "(no answer from process 0); start them all again" in ended[0]


def test_a_process_that_has_finished_may_be_silent(alive, ended):
    alive(2)
    stop, ours = alive(0), peers.Peers()
    stop()
    time.sleep(1.2)
    ours.close()
    assert not ended


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


def facts_of(service, number, **changed):
    facts = {"config.seed": "0", "the number of images": "7"} | {k.replace("_", " "): v for k, v in changed.items()}
    service.found[f"diffjax/facts/0/{number}"] = json.dumps(facts)


OURS = {"config.seed": 0, "the number of images": 7}


@pytest.mark.usefixtures("first_call")
def test_processes_with_the_same_facts_agree(service):
    facts_of(service, 0)
    facts_of(service, 2)
    peers.check_agreement(OURS)
    assert service.barrier == "diffjax/facts/0"


@pytest.mark.usefixtures("first_call")
@pytest.mark.parametrize("other", [0, 2])
def test_every_process_names_the_one_that_differs(service, other):
    facts_of(service, 0)
    facts_of(service, 2)
    facts_of(service, other, the_number_of_images="9")
    numbers = {0: (1, 7, 9), 2: (2, 9, 7)}[other]
    words = "in process {}, the number of images is {}, in process 0 it is {}".format(*numbers)
    with pytest.raises(UserError, match=f"the same config and see the same data: {words}$"):
        peers.check_agreement(OURS)


@pytest.mark.usefixtures("first_call")
def test_a_process_that_does_not_come(service):
    facts_of(service, 0)
    with pytest.raises(
        UserError, match="another process of this run seems to have ended .*no diffjax/facts/0/2 in 600"
    ):
        peers.check_agreement(OURS)


def test_one_process_agrees_with_itself():
    peers.check_agreement(OURS)
