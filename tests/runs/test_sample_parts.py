import numpy as np
import pytest

from diffjax.errors import UserError
from diffjax.runs.sample_parts import Parts, digest

IMAGES = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)


@pytest.fixture
def make(tmp_path):
    """A function: the claimed parts of the samples that the given facts identify."""

    def parts(**identity):
        made = Parts(tmp_path / "parts", identity)
        made.claim()
        return made

    return parts


def test_batches_are_kept_and_joined_in_order(make, tmp_path):
    make(seed=0).save(3, IMAGES + 20)
    make(seed=0).save(0, IMAGES)
    assert make(seed=0).done(range(0, 9, 3)) == {0, 3}
    np.testing.assert_array_equal(make(seed=0).load([0, 3]), np.concatenate([IMAGES, IMAGES + 20]))
    with pytest.raises(UserError, match=r"cannot read .*000000006.npz: run the same command again"):
        make(seed=0).load([0, 6])
    make(seed=0).remove()
    assert not list(tmp_path.iterdir())


def test_batches_of_other_samples_are_not_taken(make, tmp_path):
    make(seed=0, num=6).save(0, IMAGES)
    with pytest.raises(UserError, match=r"parts holds parts of another run \(num, seed differ\): finish that one"):
        make(seed=1, num=7)
    for content in (None, "", "{", "[1]", b"\xff\x00"):  # removed by a run that was killed, or damaged
        path = tmp_path / "parts" / "run.json"
        path.unlink() if content is None else path.write_bytes(
            content.encode() if isinstance(content, str) else content
        )
        assert make(seed=1, num=7).done([0]) == set()
        path.unlink()
        assert make(seed=0, num=6).done([0]) == {0}


def test_a_damaged_batch_is_missing(make, tmp_path):
    parts, path = make(seed=0), tmp_path / "parts" / "000000000.npz"
    parts.save(0, IMAGES)
    whole = path.read_bytes()
    damaged = [whole[:size] for size in range(0, len(whole), 7)]
    damaged += [whole[:n] + bytes([whole[n] ^ 0x5A]) + whole[n + 1 :] for n in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert not parts.done([0]) or np.array_equal(parts.load([0]), IMAGES)
    path.write_bytes(b"\x80\x04N.")  # a pickle
    assert not parts.done([0])


def test_the_digest_is_that_of_the_values():
    params = {"a": np.arange(6, dtype=np.float32), "b": {"c": np.float32(1.0)}}
    assert digest(params) == digest({**params, "a": params["a"].copy()})
    others = [{**params, "a": params["a"] + 1}, {**params, "a": params["a"].reshape(2, 3)}, {"a": params["a"]}]
    assert len({digest(params), *map(digest, others)}) == 4
