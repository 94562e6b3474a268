"""The benchmark's table, and what it counts by hand; nothing here is timed."""

import importlib.util
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffjax import models
from diffjax.cli import launch


@pytest.fixture
def command(monkeypatch):
    """A function: runs benchmark.py in this process, whose settings it leaves alone."""
    import benchmark

    monkeypatch.setattr(launch, "start", lambda **_: None)

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *map(str, arguments)])
        benchmark.main()

    return run


@pytest.fixture
def benchmarks():
    from benchmarks import costs, kernels, networks, subject, turns

    return {"costs": costs, "kernels": kernels, "networks": networks, "subject": subject, "turns": turns}


@pytest.fixture
def without_pytorch(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in ("torch", "diffusers") else find(name)
    )


def test_table_and_json(command, capsys, tmp_path):
    command("benchmark", "--rows", "scan", "cost", "--repeats", 3, "--batch", 8, "--json", tmp_path / "figures.json")
    scan, flops, moved = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert (scan["row"], flops["row"], moved["row"]) == ("scan", "cost", "cost")
    assert len(scan["values"]) == len(scan["others"]) == 3
    assert min(scan["values"] + scan["others"]) > 0
    assert scan["ratio"] == pytest.approx(np.median(np.divide(scan["others"], scan["values"])))
    printed = capsys.readouterr().out.splitlines()
    assert f"| {scan['ratio']:.3g} (" in printed[-3]
    assert printed[0].endswith("digits, batch 8, float32, 3 turns")
    # XLA counts norms, activations and sums besides.
    assert 1 < flops["ratio"] < 1.1


@pytest.mark.usefixtures("without_pytorch")
def test_rows_without_pytorch(benchmarks, command, capsys, monkeypatch):
    monkeypatch.setitem(benchmarks["kernels"]._SIDE, "cpu", 64)
    command("benchmark", "--rows", "ceiling", "call", "--repeats", 1, "--batch", 8)
    _, _, _, _, ceiling, call = capsys.readouterr().out.splitlines()
    assert ceiling == "| ceiling | left out: PyTorch is not installed | | | |"
    assert call.startswith("| one call, 0.231M UNet, batch 8 | a matrix product of as many FLOPs | ")


def test_training_s_first_state_is_of_the_types_of_the_next(benchmarks):
    # Or the second step would compile anew.
    step, state, batches = benchmarks["subject"].load("digits", 8, "float32").training()
    following, _ = jax.eval_shape(step, state, batches)
    first, second = (
        jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), whole.replace(key=None))
        for whole in (state, following)
    )
    assert first == second


@pytest.mark.slow
def test_remat_keeps_less_for_the_backward_pass(command, tmp_path):
    command("benchmark", "--rows", "memory", "--repeats", 1, "--batch", 8, "--json", tmp_path / "figures.json")
    kept, _, _ = json.loads((tmp_path / "figures.json").read_text())["rows"]
    assert "kept for the backward pass" in kept["measured"]
    assert kept["ratio"] > 4


@pytest.mark.slow
def test_every_row(command, capsys):
    command("benchmark", "--repeats", 1, "--batch", 8, "--steps", 3)
    found = capsys.readouterr().out.splitlines()[4:]
    assert len(found) >= 14
    assert not [row for row in found if "left out" in row and "PyTorch" not in row]


@pytest.mark.parametrize("flag", ["--repeats", "--batch", "--steps", "--steps-per-call"])
def test_refuses_no_turns_and_no_images(command, capsys, flag):
    with pytest.raises(SystemExit):
        command("benchmark", flag, 0)
    assert f"{flag}=0" in capsys.readouterr().err


def test_pytorch_has_the_same_network_and_the_same_sample(benchmarks):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra: parity)")
    pytest.importorskip("diffusers", reason="diffusers is not installed (extra: parity)")
    import diffjax as dj

    threads = torch.get_num_threads()
    from benchmarks import pytorch

    of = benchmarks["subject"].load("digits", 2, "float32")
    x, t, error = of.x, of.t, benchmarks["networks"]._error
    try:
        theirs = pytorch.Network(of)
        torch.set_num_threads(1)
        ours = jax.jit(of.predict())(x, t)
        assert error(theirs.to_numpy(theirs.call(np.asarray(x), np.asarray(t))()), ours) < 1e-5
        steps = dj.samplers.ddim(of.run.schedule, dj.timesteps.trailing(1000, 4))
        ours = dj.sample(steps, of.predict(), x, clip=1.0)
        assert error(theirs.to_numpy(theirs.ddim(np.asarray(x), 4)()), ours) < 1e-4
        train = theirs.trainer(of.images)
        assert np.isfinite([train().item() for _ in range(2)]).all()
    finally:
        torch.set_num_threads(threads)


def test_flops_by_hand(benchmarks):
    # One level, no attention: conv_in, two blocks of two convolutions (and their inner maps), the way up's, conv_out.
    model = models.UNet(base_channels=8, channel_mults=(1,), num_res_blocks=1, attention_resolutions=(), num_groups=4,
                        middle_attention=False)  # fmt: skip
    size, c = 6, 8
    taps = (3 * size - 2) ** 2
    convolution = 2 * taps
    blocks = {"down": (c, 1), "middle": (c, 2), "up": (2 * c, 2)}
    expected = 2 * convolution * 3 * c + 2 * (c * 4 * c + 4 * c * 4 * c)
    for inputs, count in blocks.values():
        expected += count * (convolution * (inputs * c + c * c) + 2 * 4 * c * c)
        expected += count * (2 * size**2 * inputs * c if inputs != c else 0)
    cost = benchmarks["costs"].of_call(model, (size, size, 3), 5)
    assert cost.flops == 5 * expected


def test_flops_are_those_that_xla_counts(benchmarks):
    model = models.UNet(
        base_channels=32, channel_mults=(1, 2), num_res_blocks=1, attention_resolutions=(8,), num_groups=4
    )
    x, t = jnp.zeros((2, 16, 16, 3)), jnp.zeros(2)
    params = jax.eval_shape(model.init, jax.random.key(0), x, t)["params"]
    counted = jax.jit(lambda p: model.apply({"params": p}, x, t)).lower(params).cost_analysis()["flops"]
    assert 1 < counted / benchmarks["costs"].of_call(model, (16, 16, 3), 2).flops < 1.05


def test_all_reduce_bytes(benchmarks):
    costs = benchmarks["costs"]
    assert costs.all_reduce_bytes(10, 1) == 0
    assert costs.all_reduce_bytes(10, 2) == 40
    assert costs.all_reduce_bytes(10, 8) == 70
