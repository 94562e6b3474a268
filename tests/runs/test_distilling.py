"""From a config to a student: its teacher, training that resumes, samples, the next stage."""

import shutil

import jax
import numpy as np
import pytest
from students import DISTILL, tiny_config, write_run

import diffjax as dj
from diffjax import interop
from diffjax.errors import UserError
from diffjax.runs import build, resolve
from diffjax.runs.train import initial_parts, train


@pytest.fixture
def teacher(tmp_path):
    """A workdir of a generation run, and its average."""
    return tmp_path / "teacher", write_run(tmp_path / "teacher")


def equal(found, wanted):
    return all(np.array_equal(*pair) for pair in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True))


def test_the_steps_of_sampling_are_the_students():
    """Unless they are given; another number of steps of the student brings another default."""
    config = resolve.resolve({"task": {"name": "distillation", "teacher": "runs/digits", "num_steps": 4}})
    assert (config.sample.num_steps, config.sample.sampler, config.sample.eta) == (4, "ddim", 0.0)
    assert config.sample.timestep_spacing == "trailing"
    given = {"task": {"name": "distillation", "teacher": "runs/digits"}, "sample": {"num_steps": 3}}
    assert resolve.resolve(given).sample.num_steps == 3
    del given["sample"]
    assert resolve.resolve(given).sample.num_steps == 16
    assert resolve.parse(given, {"task.num_steps": "2"}).sample.num_steps == 2
    assert given == {"task": {"name": "distillation", "teacher": "runs/digits"}}


def test_sampling_at_other_timesteps_warns(tmp_path, recwarn):
    write_run(tmp_path / "student", DISTILL | {"task.teacher": "nowhere"})
    run = dj.runs.load(tmp_path / "student")  # its config sets five steps
    recwarn.clear()
    for sampler in ("ddim", "ddpm"):
        assert run.with_options(num_steps=4, sampler=sampler).sampler.num_rows == 4
    assert not recwarn
    words = "^config.sample: this network was trained at t = 19, 14, 9, 4 alone, and the sampler also calls it at 12"
    with pytest.warns(UserWarning, match=words):
        run.with_options(num_steps=3)


def test_training_resumes_to_the_bit_and_the_student_is_a_teacher(tmp_path, teacher):
    workdir, average = teacher
    config = tiny_config(DISTILL | {"task.teacher": str(workdir), "optimizer.name": "adamw"})
    done = train(config, tmp_path / "student", progress=False)
    assert equal(done.params["teacher"], average)
    assert equal(done.ema_params[0.9]["teacher"], average)
    assert not any(np.array_equal(*pair) for pair in zip(*map(jax.tree.leaves, done.params.values()), strict=True))

    shutil.copytree(tmp_path / "student", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "4")
    workdir.rename(tmp_path / "elsewhere")  # a run that resumes does not need the teacher any more
    again = train(config, tmp_path / "again", progress=False)
    assert equal((again.params, again.ema_params, again.opt_state), (done.params, done.ema_params, done.opt_state))

    run = dj.runs.load(tmp_path / "student")
    student = done.ema_params[0.9]["student"]
    assert run.num_params == sum(leaf.size for leaf in jax.tree.leaves(student))
    assert run.sampler.num_rows == 4

    following = DISTILL | {"task.num_steps": 2, "task.teacher": str(tmp_path / "student"), "task.teacher_target": None}
    parts = initial_parts(build.task(tiny_config(following)), tmp_path / "next")
    assert equal(parts["teacher"], student)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"task.teacher": "nowhere"}, "^config.task.teacher: nowhere does not exist; it must be a folder that"),
        ({"task.teacher": "."}, r"^config.task.teacher: \. holds no run; it must be a folder that `diffjax train` has written"),
        ({"task.teacher": None}, "^config.task.teacher: None must be a string"),
        ({"task.teacher_target": "v"}, "^config.task.teacher_target: 'v' must be 'eps', what .*/teacher predicts$"),
        ({"task.teacher_target": None}, "^config.task.teacher_target: 'v' must be 'eps', what .*/teacher predicts$"),
        ({"task.teacher_target": "score"}, "^config.task.teacher_target: 'score' must be one of 'eps', "),
        ({"task.num_steps": 11}, "^config.task.num_steps: 11 must be within 1 … 10: the teacher takes twice as many"),
        ({"task.num_steps": 0}, "^config.task.num_steps: 0 must be a whole number ≥ 1$"),
        ({"task.timestep_scale": 2.0}, "^config.task.timestep_scale: 2.0 must be 1.0, that of .*/teacher$"),
        ({"schedule.beta_end": 0.03}, "^config.schedule: must be that of .*/teacher, which has other values"),
        ({"schedule.num_timesteps": 30}, "^config.schedule: must be that of .*/teacher, which has other values"),
        ({"schedule.zero_terminal_snr": True}, "^config.task.teacher_target: 'eps' does not determine x0 where"),
        ({"data.image_shape": (8, 4, 1), "data.resize": "crop"}, r"^config.data.image_shape: \(8, 4, 1\) must be \(8, 8"),
        ({"model.width": 5}, "^config.task.teacher: the network of .*/teacher is another one: width=4, must be 5$"),
        ({"model.name": "dit", "model.patch_size": 2}, "^config.task.teacher: the network of .* is a Mlp, must be a DiT"),
        ({"train.vlb_weight": 0.1}, "^config.train.vlb_weight: 0.1 must be 0.0 for the task distillation$"),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit(tmp_path, teacher, fields, words, count_compilations):
    """One line, before anything is compiled or written."""
    count_compilations()
    with pytest.raises(UserError, match=words) as caught:
        train(tiny_config(DISTILL | {"task.teacher": str(teacher[0])} | fields), tmp_path / "run", progress=False)
    assert "\n" not in str(caught.value)
    assert count_compilations() == 0
    assert not (tmp_path / "run").exists()


def test_a_student_of_other_steps_is_no_teacher(tmp_path):
    write_run(tmp_path / "student", DISTILL | {"task.teacher": "nowhere"})
    given = DISTILL | {"task.num_steps": 3, "task.teacher_target": None, "task.teacher": str(tmp_path / "student")}
    with pytest.raises(UserError, match=r"^config.task.num_steps: 3 must be half of 4, the steps of .*/student$"):
        train(tiny_config(given), tmp_path / "run", progress=False)


def test_a_run_of_another_task_is_no_teacher(tmp_path):
    other = {"task.name": "regression", "data.degradation.kinds": ("gaussian",)}
    write_run(tmp_path / "regression", other)
    with pytest.raises(UserError, match="holds a run of the task Regression; it must be Generation"):
        train(tiny_config(DISTILL | {"task.teacher": str(tmp_path / "regression")}), tmp_path / "run", progress=False)


@pytest.mark.slow
def test_weights_of_diffusers_are_a_teacher_and_a_student_is_exported(tmp_path):
    """The attention of the folder's network is set by level, the config's by height: they are equal."""
    unet = {
        "model.name": "unet", "model.base_channels": 8, "model.channel_mults": (1,), "model.num_res_blocks": 1,
        "model.num_groups": 4, "model.attention_resolutions": (),
    }  # fmt: skip
    average = write_run(tmp_path / "student", DISTILL | unet | {"task.teacher": "nowhere"})["student"]
    folder = interop.export(tmp_path / "folder", dj.runs.load(tmp_path / "student"))
    given = DISTILL | unet | {"task.num_steps": 2, "task.teacher_target": None, "task.teacher": str(folder)}
    parts = initial_parts(build.task(tiny_config(given)), tmp_path / "next")
    assert equal(parts["teacher"], average)
