import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffjax import data


def numbered(count):
    """A source whose n-th image and label are n."""
    numbers = np.arange(count)
    return data.ArraySource(np.full((count, 1, 1, 1), numbers.reshape(-1, 1, 1, 1), np.uint8), numbers)


def labels(iterator, count):
    return [next(iterator)["label"].tolist() for _ in range(count)]


def test_batches():
    batch = next(data.batches(numbered(10), batch_size=4, seed=0))
    assert batch["image"].shape == (4, 1, 1, 1)
    assert batch["image"].dtype == np.uint8
    assert batch["label"].dtype == np.int32
    np.testing.assert_array_equal(batch["image"].ravel(), batch["label"])


def test_every_epoch_is_another_order_of_everything():
    iterator = data.batches(numbered(12), batch_size=4, seed=0)
    epochs = [np.concatenate(labels(iterator, 3)).tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_same_seed_same_order():
    first, again, other = (labels(data.batches(numbered(50), batch_size=8, seed=s), 5) for s in (1, 1, 2))
    assert first == again != other


def test_the_index_of_an_example_of_the_stream():
    source = numbered(12)
    stream = np.concatenate(labels(data.batches(source, batch_size=5, seed=3), 6)).tolist()
    assert [data.source_index(source, seed=3, number=number) for number in range(30)] == stream


@pytest.mark.parametrize("position", [0, 1, 4, 7, 40])
def test_resumes_from_a_position(position):
    iterator = data.batches(numbered(10), batch_size=4, seed=3)
    labels(iterator, position)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = labels(iterator, 6)
    assert labels(data.batches(numbered(10), batch_size=4, seed=3, start=state), 6) == rest


def augmented(count=4, **options):
    """The next `count` batches of 12 images of 2×3, flipped at random, and the position after them."""
    images = np.random.default_rng(0).integers(0, 256, (20, 2, 3, 1), np.uint8)
    iterator = data.batches(
        data.ArraySource(images, np.arange(20)),
        batch_size=12,
        seed=5,
        prepare=partial(data.prepare, shape=(2, 3, 1), random_flip=True),
        **options,
    )
    taken = [next(iterator) for _ in range(count)]
    state = iterator.get_state()
    iterator.close()
    return taken, state


def joined(parts):
    """Batches of several processes → the global batches."""
    return [
        {k: np.concatenate([part[k] for part in step]) for k in ("image", "label")} for step in zip(*parts, strict=True)
    ]


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a["label"], b["label"])
        np.testing.assert_array_equal(a["image"], b["image"])


@pytest.mark.parametrize("processes", [2, 3])
def test_any_number_of_processes_shares_the_same_global_batch(processes):
    whole, state = augmented()
    parts = [augmented(process_index=index, process_count=processes) for index in range(processes)]
    assert_same(whole, joined([batches for batches, _ in parts]))
    assert all(part_state == state for _, part_state in parts)
    rest, _ = augmented(3, start={"batches": 2})
    parts = [augmented(3, start={"batches": 2}, process_index=i, process_count=processes)[0] for i in range(processes)]
    assert_same(rest, joined(parts))


def test_augmentation_differs_from_epoch_to_epoch():
    batches, _ = augmented(50)
    seen = {}
    for batch in batches:
        for image, label in zip(batch["image"], batch["label"], strict=True):
            seen.setdefault(int(label), []).append(image.tobytes())
    assert all(len(set(images)) == 2 for images in seen.values())


def test_workers_change_nothing():
    whole, end = augmented(7)
    first, state = augmented(3)
    rest, end_again = augmented(4, num_workers=2, start=json.loads(json.dumps(state)))
    assert_same(whole, first + rest)
    assert end == end_again


READER = """
import time
from diffjax import data
if __name__ == "__main__":
    batches = data.batches(data.digits(), batch_size=8, seed=0, num_workers=1)
    next(batches)
    print(*(process.pid for process in __import__("multiprocessing").active_children()), flush=True)
    time.sleep(300)
"""


def test_workers_outlive_signals_to_the_group_but_not_their_reader(tmp_path):
    (tmp_path / "reader.py").write_text(READER)
    reader = subprocess.Popen(
        [sys.executable, tmp_path / "reader.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    (worker,) = map(int, reader.stdout.readline().split())
    os.kill(worker, signal.SIGTERM)
    time.sleep(0.5)
    assert alive(worker)
    reader.kill()
    reader.wait()
    deadline = time.monotonic() + 20
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_unreadable_image_is_named(tmp_path, num_workers):
    (tmp_path / "broken.png").write_bytes(b"no image")
    source = data.folder(tmp_path)
    with pytest.raises(ValueError, match="cannot read .*broken.png"):
        next(data.batches(source, batch_size=1, seed=0, num_workers=num_workers))


def test_an_image_of_another_size_is_named(tmp_path):
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(tmp_path / "a.png")
    source, prepare = data.folder(tmp_path), partial(data.prepare, shape=(4, 4, 1))
    with pytest.raises(ValueError, match=r"^image_shape=\(4, 4, 1\) does not match .*; the image is \S*/a.png"):
        next(data.batches(source, batch_size=1, seed=0, prepare=prepare))


def test_a_condition_of_another_size():
    example = {"image": np.zeros((4, 4, 1), np.uint8), "label": 0, "condition": np.zeros((2, 2, 1), np.uint8)}
    with pytest.raises(ValueError, match=r"an image of shape \(4, 4, 1\) has a condition of another size, \(2, 2, 1\)"):
        data.prepared(example, None, partial(data.prepare, shape=(2, 2, 1), resize="crop"), None)


def test_position_can_be_set_again():
    iterator = data.batches(numbered(10), batch_size=4, seed=3)
    first = labels(iterator, 3)
    iterator.set_state({"batches": 0})
    assert labels(iterator, 3) == first


@pytest.mark.parametrize("count", [1, 3])
def test_prefetch_reads_ahead_and_returns_the_position_of_the_last_batch_taken(count):
    log = []

    def put(batches):
        log.append([batch["label"].tolist() for batch in batches])
        return log[-1]

    expected = labels(data.batches(numbered(10), batch_size=4, seed=3), 12 * count)
    taken = data.Prefetch(data.batches(numbered(10), batch_size=4, seed=3), put, count)
    assert taken.get_state() == {"batches": 0}
    for step in range(1, 5):
        assert next(taken) == expected[(step - 1) * count : step * count]
        assert len(log) == step + 1
        assert taken.get_state() == {"batches": step * count}
    again = data.batches(numbered(10), batch_size=4, seed=3, start=taken.get_state())
    assert next(data.Prefetch(again, put, count)) == next(taken)


@pytest.mark.parametrize("num_workers", [-1, 257, 10**12, 1.0, float("nan"), True, None, "2"])
def test_bad_num_workers(num_workers):
    with pytest.raises(ValueError, match=r"^num_workers=.* is out of range: allowed is 0 … 256$"):
        data.batches(numbered(10), batch_size=4, seed=0, num_workers=num_workers)


@pytest.mark.parametrize("seed", [-1, 1.5, None, "0"])
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"^seed=.* must be a whole number ≥ 0$"):
        data.batches(numbered(10), batch_size=4, seed=seed)


def test_bad_process_count():
    with pytest.raises(ValueError, match="^batch_size=4 is not a multiple of the 3 processes"):
        data.batches(numbered(10), batch_size=4, seed=0, process_count=3)


@pytest.mark.parametrize("batch_size", [0, 11, 4.0, None])
def test_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match=f"^batch_size={batch_size} is out of range: allowed is 1 … 10"):
        data.batches(numbered(10), batch_size=batch_size, seed=0)
