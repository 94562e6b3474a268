"""The kind `distillation`: a chain of students, each the teacher of the next."""

import jax
import numpy as np
import pytest
from students import DISTILL, tiny_config, write_run

from diffjax import sampling
from diffjax.errors import UserError
from diffjax.runs import resolve, run
from diffjax.sweeps.compute import compute
from diffjax.sweeps.config import SWEEP


@pytest.fixture
def base(tmp_path):
    """The config of a student, with a teacher."""
    write_run(tmp_path / "teacher")
    config = tiny_config(DISTILL | {"task.teacher": str(tmp_path / "teacher"), "train.steps": 2})
    path = tmp_path / "student.py"
    path.write_text(f"def get_config():\n    return {resolve.to_dict(config)}\n")
    return path


def chain(base, *steps, **changes):
    cells = tuple((str(number), {"task.num_steps": number}) for number in steps)
    options = {"num": 4, "figures": ("kernel",), "reference_num": 4}
    return resolve.resolve(
        {"kind": "distillation", "base": str(base), "axes": (("S", cells),)} | options | changes, section=SWEEP
    )


@pytest.mark.slow
def test_each_student_is_the_teacher_of_the_next(base, tmp_path, monkeypatch):
    out = tmp_path / "out"
    written = compute(chain(base, 4, 2), out=out)
    assert written.num_done == 2
    students = [run.load(out / "runs" / name) for name in ("S=4", "S=2")]
    assert [student.sampler.num_rows for student in students] == [4, 2]
    pairs = zip(*map(jax.tree.leaves, (students[1].params["teacher"], students[0].sampled_params)), strict=True)
    assert all(np.array_equal(*pair) for pair in pairs)
    lines = (out / "table.csv").read_text().splitlines()
    assert {"kernel", "teacher_kernel", "calls"} <= set(lines[0].split(","))
    monkeypatch.setattr(sampling, "sample", None)  # nothing is computed again
    assert compute(chain(base, 4, 2), out=out).num_done == 2


def test_a_teacher_is_trained_to_its_end_first(base, tmp_path):
    """As where several processes share a sweep."""
    with pytest.raises(UserError, match="^config.task.teacher: .*S=4 does not exist"):
        compute(chain(base, 4, 2), out=tmp_path / "out", shard="1/2")
    write_run(tmp_path / "out" / "runs" / "S=4", DISTILL | {"task.teacher": "nowhere"})
    with pytest.raises(UserError, match="^config.task.teacher: .*S=4 is at step 0; train it to 4 first$"):
        compute(chain(base, 4, 2), out=tmp_path / "out", shard="1/2")


def test_bad_chains(base, tmp_path):
    """One line, before anything is written."""
    axes = (("S", (("4", {"task.num_steps": 4}),)), ("width", (("5", {"model.width": 5}),)))
    wrong = {
        "^config.axes: S=3: config.task.num_steps: 3 must be half of 4, the steps of .*S=4$": chain(base, 4, 3),
        "^config.axes: S=11: config.task.num_steps: 11 must be within 1 … 10": chain(base, 11),
        "^config.axes: S=0: config.task.num_steps: 0 must be a whole number ≥ 1$": chain(base, 0),
        "^config.axes: S, width must be one axis": chain(base, axes=axes),
        "^config.axes: S=4: config.task.teacher: nowhere does not": chain(
            base, 4, fields={"task": {"teacher": "nowhere"}}
        ),
        "^config.base: its task 'generation' must be 'distillation'$": chain("digits", 4),
        "^config.num: 0 must be ≥ 1$": chain(base, 4, num=0),
    }
    for words, config in wrong.items():
        with pytest.raises(UserError, match=words) as caught:
            compute(config, out=tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists()
