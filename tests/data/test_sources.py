import numpy as np
import pytest
from PIL import Image

from diffjax import data


def test_digits_are_the_real_ones():
    source = data.digits()
    assert len(source) == 1797
    example = source[3]
    assert example["image"].shape == (8, 8, 1)
    assert example["image"].dtype == np.uint8
    assert [source[i]["label"] for i in range(10)] == list(range(10))
    assert np.unique(source.images).tolist() == [round(255 * level / 16) for level in range(17)]


def test_split_is_a_partition_and_repeats():
    source = data.digits()
    kept, held = data.split(source, 0.2, seed=1)
    assert (len(kept), len(held)) == (1438, 359)
    assert sorted([*kept.indices, *held.indices]) == list(range(1797))
    np.testing.assert_array_equal(held[5]["image"], source[held.indices[5]]["image"])
    np.testing.assert_array_equal(data.split(source, 0.2, seed=1)[1].indices, held.indices)
    assert not np.array_equal(data.split(source, 0.2, seed=2)[1].indices, held.indices)
    whole, nothing = data.split(source, 0.0, seed=1)
    assert list(whole.indices) == list(range(1797))
    assert len(nothing) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="holdout=1.0"):
        data.split(data.digits(), 1.0, seed=0)
    with pytest.raises(ValueError, match="uint8"):
        data.ArraySource(np.zeros((2, 8, 8, 1)), np.zeros(2, int))
    with pytest.raises(ValueError, match="labels"):
        data.ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(3, int))
    with pytest.raises(ValueError, match="float64"):
        data.ArraySource(np.zeros((2, 8, 8, 1), np.uint8), np.zeros(2))


@pytest.mark.parametrize(("grey", "column"), [(True, False), (False, True)])
def test_npz(tmp_path, grey, column):
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 3) if grey else (5, 4, 3, 3), np.uint8)
    numbers = np.arange(5)[:, None] if column else np.arange(5)
    np.savez(tmp_path / "some.npz", x=images, y=numbers)
    source = data.npz(tmp_path / "some.npz", image_key="x", label_key="y")
    assert len(source) == 5
    np.testing.assert_array_equal(source[2]["image"], images[2].reshape(4, 3, -1))
    assert [source[n]["label"] for n in range(5)] == [0, 1, 2, 3, 4]
    assert data.npz(tmp_path / "some.npz", image_key="x")[3]["label"] == data.NO_LABEL


def test_bad_npz(tmp_path):
    np.savez(tmp_path / "some.npz", x_train=np.zeros((5, 4, 3)), y=np.arange(5))
    with pytest.raises(ValueError, match="path='.*nowhere.npz' must be an existing file"):
        data.npz(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="'y_train' is not in .*some.npz; it has 'x_train', 'y'"):
        data.npz(tmp_path / "some.npz", label_key="y_train")
    with pytest.raises(ValueError, match="'x_train' of .*some.npz must be uint8"):
        data.npz(tmp_path / "some.npz")


def test_folder(tmp_path):
    rng = np.random.default_rng(0)
    colour, grey = rng.integers(0, 256, (5, 4, 3), np.uint8), rng.integers(0, 256, (3, 6), np.uint8)
    for name, pixels in {"cat/b.png": colour, "cat/deep/a.PNG": grey, "ant/x.bmp": colour[:2], "top.png": grey}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name)
    opaque = np.full((5, 4, 1), 255, np.uint8)
    Image.fromarray(np.dstack([colour, opaque])).save(tmp_path / "ant" / "y.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    source = data.folder(tmp_path)
    expected = [(colour[:2], 0), (colour, 0), (colour, 1), (grey[..., None], 1), (grey[..., None], data.NO_LABEL)]
    assert len(source) == 5
    for example, (pixels, label) in zip((source[n] for n in range(5)), expected, strict=True):
        np.testing.assert_array_equal(example["image"], pixels)
        assert example["image"].dtype == np.uint8
        assert example["label"] == label


def test_bad_folder(tmp_path):
    with pytest.raises(ValueError, match="path='.*nowhere' must be an existing folder"):
        data.folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"must hold images, whose names end in .bmp, .gif"):
        data.folder(tmp_path)
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "short.jpg").write_bytes(b"\xff\xd8\xff")
    source = data.folder(tmp_path)
    with pytest.raises(ValueError, match="cannot read .*deep.png: its pixels are 'I;16', not 8 bits per channel"):
        source[0]
    with pytest.raises(ValueError, match="cannot read .*short.jpg: "):
        source[1]


def write_pair(folder, sharp, blurred, **options):
    for name, size in (("sharp", sharp), ("blur", blurred)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "red").save(folder / name / "0.png", **options)


def test_pairs_of_two_sizes_are_refused_at_the_start(tmp_path):
    write_pair(tmp_path, (8, 6), (8, 6))
    source = data.pairs(tmp_path)
    assert source[0]["condition"].shape == (6, 8, 3)
    assert source.labels.tolist() == [data.NO_LABEL]
    write_pair(tmp_path, (8, 6), (4, 3))
    words = r"of one size, but \S*sharp/0.png is 8×6 and \S*blur/0.png is 4×3$"
    with pytest.raises(ValueError, match=words):
        data.pairs(tmp_path)
    with pytest.raises(ValueError, match=words):
        source[0]


def test_an_orientation_that_headers_do_not_show(tmp_path):
    write_pair(tmp_path, (8, 6), (8, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (6, 8)).save(tmp_path / "blur" / "0.png", exif=exif)
    path = tmp_path / "blur" / "0.png"
    whole = path.read_bytes()
    start = whole.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(whole[start : start + 4], "big")
    path.write_bytes(whole[:start] + whole[end:-12] + whole[start:end] + whole[-12:])  # behind the pixels
    assert data.pairs(tmp_path)[0]["condition"].shape == (6, 8, 3)


def test_pairs_leave_out_hidden_files(tmp_path):
    write_pair(tmp_path, (4, 4), (4, 4))
    write_pair(tmp_path / ".cache", (4, 4), (4, 4))
    Image.new("L", (4, 4)).save(tmp_path / "sharp" / ".1.png")
    with pytest.warns(UserWarning, match="left out 2 hidden files and folders"):
        assert len(data.pairs(tmp_path)) == 1
