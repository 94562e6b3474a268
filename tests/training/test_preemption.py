import os
import signal

import pytest

from diffjax.training.preemption import Preemption


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_caught_and_the_second_acts(number, monkeypatch):
    acted = []
    before = signal.signal(number, lambda *_: acted.append(number))
    try:
        with Preemption() as preemption:
            os.kill(os.getpid(), number)  # before the first step there is nothing to save
            assert acted == [number]
            assert not preemption.reached(range(1, 2))
            os.kill(os.getpid(), number)
            assert preemption.reached(range(2, 3))
            assert preemption.caught
            assert acted == [number]
            os.kill(os.getpid(), number)
            assert acted == [number] * 2
        os.kill(os.getpid(), number)
        assert acted == [number] * 3
    finally:
        signal.signal(number, before)
