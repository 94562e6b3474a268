import numpy as np
import pytest

from diffjax import metrics

RNG = np.random.default_rng(0)


def test_nearest_is_that_of_all_distances():
    queries, references = RNG.normal(size=(20, 5)).astype(np.float32), RNG.normal(size=(30, 5)).astype(np.float32)
    distances = np.linalg.norm(queries[:, None].astype(float) - references, axis=-1)
    found = metrics.nearest(queries, references, 3, block=7)
    np.testing.assert_array_equal(found.indices, np.argsort(distances, axis=1)[:, :3])
    np.testing.assert_allclose(found.distances, np.sort(distances, axis=1)[:, :3], rtol=1e-9)
    np.testing.assert_allclose(metrics.nearest_distances(queries, references), distances.min(1), rtol=1e-9)


def test_the_first_of_equals():
    found = metrics.nearest(np.zeros((1, 1)), np.array([[2.0], [-1.0], [1.0], [0.0], [1.0]]), 5)
    assert found.indices.tolist() == [[3, 1, 2, 4, 0]]
    assert found.distances.tolist() == [[0, 1, 1, 1, 2]]


@pytest.mark.parametrize("k", [0, 4])
def test_more_neighbours_than_references(k):
    with pytest.raises(ValueError, match=rf"k={k} must be within \[1, 3\]"):
        metrics.nearest(np.zeros((1, 2)), np.zeros((3, 2)), k)
