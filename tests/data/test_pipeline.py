import json

import numpy as np
import pytest

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


@pytest.mark.parametrize("position", [0, 1, 4, 7, 40])
def test_position_is_taken_up_again(position):
    iterator = data.batches(numbered(10), batch_size=4, seed=3)
    labels(iterator, position)
    state = json.loads(json.dumps(iterator.get_state()))
    rest = labels(iterator, 6)
    assert labels(data.batches(numbered(10), batch_size=4, seed=3, start=state), 6) == rest


@pytest.mark.parametrize("batch_size", [0, 11])
def test_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match=f"batch_size={batch_size} is out of range: allowed is 1 … 10"):
        data.batches(numbered(10), batch_size=batch_size, seed=0)
