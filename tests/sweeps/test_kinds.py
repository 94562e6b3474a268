"""What kinds of sweeps check, and what they compute."""

import jax
import jax.numpy as jnp
import optax
import pytest

from diffjax import sampling
from diffjax.errors import UserError
from diffjax.runs import config_files, resolve, saved
from diffjax.runs.run import of_config
from diffjax.runs.train import train
from diffjax.sweeps import cells, kinds
from diffjax.sweeps.compute import compute
from diffjax.sweeps.config import SWEEP, grid
from diffjax.training import state
from diffjax.training.checkpoints import Checkpoints

BRIEF = {
    "schedule": {"num_timesteps": 20},
    "data": {"holdout": 0.2},
    "model": {
        "base_channels": 8,
        "channel_mults": (1,),
        "num_res_blocks": 1,
        "num_groups": 4,
        "attention_resolutions": (),
    },
    "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2},
    "train": {"steps": 40, "batch_size": 32, "ema_decays": (0.995,), "final_pictures": False},
    "sample": {"num_steps": 3},
}


@pytest.fixture(scope="module")
def workdir(made_once):
    """A network trained for a few steps."""

    def make(path):
        train(resolve.resolve(BRIEF), path, progress=False)

    return made_once("sweeps", make)


def sweep_of(changes):
    two = (("S", (("2", {"num_steps": 2}),)),)
    return resolve.resolve({"axes": two} | changes, section=SWEEP)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "taste"}, "config.kind: 'taste' must be one of 'bits'"),
        ({"kind": "bits"}, "config.axes: S=2: config.sample.sampler: 'ddim' must be 'ddpm'"),
        ({"kind": "bits", "sample": {"sampler": "ddpm"}, "num": 1}, "config.num: 1 must be ≥ 2"),
        ({"kind": "bits", "figures": ("bounds",)}, r"config.figures: \('bounds',\) must be some of 'bound'"),
        ({"kind": "training", "base": "nowhere"}, "config.base: nowhere is "),
        ({"kind": "training"}, "config.base: missing; it must be"),
        ({"kind": "posterior", "operator": "lens"}, "config.axes: S=2: operator: 'lens' is not one of"),
        ({"kind": "posterior", "operator_options": {"factor": 3}}, "operator.factor: 3 must divide"),
        ({"kind": "posterior", "operator_options": {"facto": 3}}, "operator downsampling.facto: 3 is given"),
        ({"kind": "posterior", "noise_std": -1.0}, "noise_std: -1.0 must be a number ≥ 0"),
        ({"kind": "posterior", "num_samples": 1}, "config.num_samples: 1 must be ≥ 2"),
        (
            {"kind": "posterior", "axes": (("m", (("x", {"method": "magic"}),)),)},
            "config.axes: m=x: method: 'magic' is not one of",
        ),
        (
            {"kind": "posterior", "axes": (("m", (("x", {"nope": 1}),)),)},
            "config.axes: m=x: nope is neither one of method, .* nor a field of config.sample",
        ),
        ({"kind": "reconstruction", "sample": {}}, "config.sample: {} is given, but config has no such field"),
        ({"extractor": "eyes"}, "extractor='eyes' must be"),
        ({"extractor": "none.pth"}, "none.pth"),
        ({"num": 60}, "num=60 samples: .*needs at least 65"),
        ({"num": 0}, "config.num: 0 must be ≥ 1"),
        ({"seed": -1}, "config.seed: -1 must be ≥ 0"),
        ({"num": "many"}, "config.num: 'many' must be a whole number"),
        ({"sample": 5}, "config.sample: 5 must be a section or None"),
        ({"sample": {"etta": 0.0}}, "config.sample.etta: 0.0 is given, .*nearest: config.sample.eta"),
        ({"axes": (("N", (("60", {"num": 60, "num_steps": 2}),)),)}, "num=60 samples: .*needs at least 65"),
        ({"axes": (("N", (("x", {"num": "x"}),)),)}, "config.axes: N=x: num: 'x' must be a whole number ≥ 1"),
        ({"reference_num": 60}, "reference_num=60 real images: .*needs at least 65"),
        ({"figures": ("kernel", "fid")}, "figures='fid' is not one of"),
        ({"within": "bits"}, "config.within: 'bits' must be None or one of the figures 'kernel', 'frechet'"),
        ({"axes": (("η", (("0", {"etta": 0.0}),)),)}, "config.axes: η=0: config.sample.etta: 0.0 is given"),
        (
            {"axes": (("v", (("learned", {"sampler": "ddpm", "variance": "learned_range", "num_steps": 2}),)),)},
            "config.sample.variance: 'learned_range' needs a network that predicts it .*config.train.vlb_weight",
        ),
        ({"axes": ()}, "config.axes"),
        ({"axes": 5}, "config.axes: 5 must be a tuple"),
        ({"axes": ("S", "T")}, "config.axes: .* must be "),
        ({"axes": (("S", (("2", 2),)),)}, "config.axes: S=2: 2 must be {field: value, …}"),
        ({"axes": (("S", (("2", {}), ("2", {}))),)}, "config.axes: the axis 'S', or a label of it, is there twice"),
        ({"skip": ("S",)}, "config.skip: 'S' must be"),
        ({"skip": ((("S", "3"),),)}, "config.skip: S='3' is not one of"),
        ({"ema_decay": 0.5}, "config.ema_decay: 0.5 is not one of the run's decays 0.995"),
        ({"axes": (("S", (("30", {"num_steps": 30}),)),)}, "config.axes: S=30: config.sample.num_steps: 30"),
    ],
)
def test_bad_sweeps(changes, words, workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "sample", None)  # nothing is computed
    with pytest.raises(UserError, match=words) as caught:
        compute(sweep_of(changes), workdir=workdir, out=tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_kind_may_need_a_workdir(tmp_path):
    with pytest.raises(UserError, match="--workdir: missing; config.kind='quality' needs the folder of a trained run"):
        compute(sweep_of({}), out=tmp_path / "out")


@pytest.mark.parametrize("kind", ["quality", "bits", "reconstruction", "training"])
def test_runs_that_restore_images_are_refused(kind, tmp_path):
    restoring = {
        "task": {"name": "super_resolution"},
        "data": {"degradation": {"kinds": ("bicubic",), "factor": 2}},
        "model": BRIEF["model"],
    }
    saved.save(resolve.resolve(restoring), tmp_path / "sr3")
    base = tmp_path / "base.py"
    base.write_text(f"def get_config():\n    return {restoring}\n")
    config = sweep_of(
        {"kind": kind} | ({"base": str(base), "axes": (("a", (("a", {}),)),)} if kind == "training" else {})
    )
    with pytest.raises(UserError, match=r"(--workdir=.*|config.base): it restores images \(SuperResolution\); a sweep"):
        compute(config, workdir=tmp_path / "sr3", out=tmp_path / "out")


def test_configs_of_this_repository_are_valid():
    names = (
        "ddim_table1", "ddim_table1_fashion_mnist", "ddim_table2", "distillation", "guidance", "parameterisation",
        "posterior", "schedules", "solvers", "timestep_rules", "variance",
    )  # fmt: skip
    sizes = {name: len(grid(resolve.resolve(config_files.load(f"ablations/{name}"), section=SWEEP))) for name in names}
    assert sizes == dict(zip(names, (25, 18, 7, 5, 11, 24, 30, 8, 140, 25, 18), strict=True))


def test_cells_with_other_values_compile_nothing(workdir, count_compilations):
    """η, σ̂ and the spacing are values of the table: one program has them all."""
    values = ({"eta": 0.2}, {"eta": 1.0}, {"sigma_hat": True}, {"eta": 0.5, "timestep_spacing": "leading"})
    grid = [cells.Cell({"n": str(n)}, fields) for n, fields in enumerate(values)]
    kind = kinds.quality(grid, workdir, num=100, batch_size=50)
    found = [kind.compute(grid[0])]
    count_compilations()
    found += [kind.compute(cell) for cell in grid[1:]]
    assert count_compilations() == 0
    assert len({figures["frechet"] for figures, _ in found}) == 4
    assert {pictures.shape for _, pictures in found} == {(8, 8, 8, 1)}


def test_cells_have_the_average_they_name(workdir, tmp_path):
    config = resolve.override(saved.load(workdir), {"train.ema_decays": (0.995, 0.5)})
    saved.save(config, tmp_path / "two")
    trained = of_config(config, workdir, ema=0.995).params
    nothing = jax.tree.map(jnp.zeros_like, trained)
    created = state.create(lambda key: trained, optax.sgd(0.1), jax.random.key(0), ema_decays=(0.995, 0.5))
    with Checkpoints(tmp_path / "two", keep=1) as checkpoints:
        checkpoints.save(created.replace(ema_params={0.995: trained, 0.5: nothing}), {})
    (own, _), (other, _) = figures_by_decay(tmp_path / "two", (0.995, 0.5))
    assert other["frechet"] > own["frechet"] + 1  # a network of zeros samples noise
    ((alone, _),) = figures_by_decay(workdir, (0.995,))
    assert own == alone
    with pytest.raises(
        UserError, match=r"config.axes: EMA=0.9: ema_decay: 0.9 is not one of the run's decays 0.995, 0.5"
    ):
        figures_by_decay(tmp_path / "two", (0.9,))


def figures_by_decay(workdir, decays):
    grid = [cells.Cell({"EMA": str(decay)}, {"ema_decay": decay}) for decay in decays]
    kind = kinds.quality(grid, workdir, num=100, batch_size=50)
    return [kind.compute(cell) for cell in grid]


def test_fields_of_free_sections_are_values():
    config = resolve.parse(
        {"axes": (("S", (("2", {}),)),)},
        {"sample.num_steps": "3", "sample.sampler": "ddpm", "sample.guidance_interval": "(0.3, 3.0)", "num": "5"},
        schema=SWEEP,
    )
    assert resolve.to_dict(config.sample) == {"num_steps": 3, "sampler": "ddpm", "guidance_interval": (0.3, 3.0)}
    assert config.num == 5
