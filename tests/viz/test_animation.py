import numpy as np
import pytest
from PIL import Image

from diffjax import viz
from diffjax.data.pixels import to_uint8

RNG = np.random.default_rng(0)


def frames(count, channels=1):
    x = RNG.uniform(-1.2, 1.2, (count, 3, 8, 8, channels))
    return x, -x


def read(path):
    with Image.open(path) as file:
        shown = []
        for k in range(file.n_frames):
            file.seek(k)
            file.load()
            shown.append((np.asarray(file.convert("RGB")), file.info["duration"]))
        return shown, file.info.get("loop")


@pytest.mark.parametrize(("suffix", "channels"), [(".gif", 1), (".webp", 1), (".webp", 3)])
def test_every_frame_as_it_is_and_as_long_as_it_should(tmp_path, suffix, channels):
    x, x0 = frames(5, channels)
    pictures = viz.animation_frames([999, 700, 30, 2, -1], x, x0, columns=2, tile=16)
    path = viz.save_animation(tmp_path / f"a{suffix}", pictures, milliseconds=70, hold=1500)
    shown, loop = read(path)
    assert [duration for _, duration in shown] == [70, 70, 70, 70, 1500]
    for (picture, _), wanted in zip(shown, pictures, strict=True):
        np.testing.assert_array_equal(picture, wanted)
    assert loop == 0
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_colours_of_a_gif_are_near(tmp_path):
    pictures = viz.animation_frames([1, -1], *frames(2, 3), columns=3, tile=16)
    shown, _ = read(viz.save_animation(tmp_path / "a.gif", pictures))
    for (picture, _), wanted in zip(shown, pictures, strict=True):
        assert np.mean(np.abs(picture.astype(float) - wanted)) < 8


def test_frames_show_x_beside_x0_under_their_level():
    x, x0 = frames(3)
    t = [5, 2, -1]
    both = viz.animation_frames(t, x, x0, columns=2, tile=64)
    alone = viz.animation_frames(t, x, columns=2, tile=64)
    side = 2 * 66 + 2
    for k in range(3):
        np.testing.assert_array_equal(both[k][-side:, :side], viz.grid(to_uint8(x[k]), columns=2))
        np.testing.assert_array_equal(both[k][-side:, -side:], viz.grid(to_uint8(x0[k]), columns=2))
        np.testing.assert_array_equal(alone[k], both[k][:, :side])
    # A head depends on the level alone.
    heads = [picture[:22, :side] for picture in both]
    again = viz.animation_frames(t[::-1], x, columns=2, tile=64)
    for k in range(3):
        np.testing.assert_array_equal(heads[k], again[2 - k][:22])
        assert not np.array_equal(heads[k], heads[k - 1])


def test_one_size_whatever_the_level():
    pictures = viz.animation_frames([999, -1], *frames(2), columns=3, tile=8)
    assert len({picture.shape for picture in pictures}) == 1
    assert np.all(pictures[0][:22, -1] == 255)


@pytest.mark.parametrize(
    ("name", "count", "options", "words"),
    [
        ("a.mp4", 2, {}, r"suffix is one of '\.gif', '\.webp'"),
        ("a.gif", 0, {}, "0 frames of sizes"),
        ("a.gif", 2, {"hold": 5}, "hold=5 must be ≥ 10"),
    ],
)
def test_refuses(tmp_path, name, count, options, words):
    with pytest.raises(ValueError, match=words):
        viz.save_animation(tmp_path / name, [np.zeros((2, 2, 3), np.uint8)] * count, **options)
    assert not list(tmp_path.iterdir())


def test_as_many_levels_as_frames():
    x, x0 = frames(3)
    with pytest.raises(ValueError, match="2 levels"):
        viz.animation_frames([1, -1], x, x0, columns=2)


def test_whole_or_not_at_all(tmp_path, monkeypatch):
    def save(self, path, *args, **options):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match="No space left"):
        viz.save_animation(tmp_path / "a.gif", [np.zeros((2, 2, 3), np.uint8)])
    assert not list(tmp_path.iterdir())
