"""tensorflow-datasets: prepared by TensorFlow where it is installed, read without it everywhere.

`cifar10_tiny.zip` is what `diffjax prepare` made of `archive`.
"""

import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diffjax import data
from diffjax.cli import prepare
from diffjax.errors import UserError

pytest.importorskip("tensorflow_datasets")

ROOT = Path(__file__).parents[2]
PER_FILE = 2


def picture(number):
    """Rows, columns and a number: no two are the same, nor the same as a mirrored or transposed one."""
    rows, columns = np.mgrid[:32, :32]
    return np.stack([8 * rows, 4 * columns, np.full((32, 32), number)], -1).astype(np.uint8)


def archive(folder):
    """CIFAR-10's archive as its authors lay it out, with two images a file: the n-th has label n % 10."""
    files = [f"data_batch_{n}.bin" for n in (1, 2, 3, 4, 5)] + ["test_batch.bin"]
    contents = {
        "batches.meta.txt": b"".join(
            b"%s\n" % name for name in b"plane car bird cat deer dog frog horse ship truck".split()
        )
    }
    for place, name in enumerate(files):
        numbers = range(PER_FILE * place, PER_FILE * (place + 1))
        contents[name] = b"".join(bytes([n % 10]) + picture(n).transpose(2, 0, 1).tobytes() for n in numbers)
    with tarfile.open(folder / "cifar-10-binary.tar.gz", "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


READ = """
import sys
import numpy as np
from diffjax import data
from diffjax.cli import prepare
for split in ("train", "test"):
    source = data.tfds("cifar10", split=split, data_dir=sys.argv[1])
    batch = next(data.batches(source, batch_size=len(source), seed=0))
    np.savez(f"{sys.argv[2]}/{split}.npz", **batch)
assert "tensorflow" not in sys.modules
"""


def check(data_dir, out):
    """Reads both splits, sees that TensorFlow was not imported, and compares every image."""
    subprocess.run([sys.executable, "-c", READ, data_dir, out], check=True)
    for split, numbers in (("train", range(10)), ("test", range(10, 12))):
        with np.load(out / f"{split}.npz") as batch:
            images, labels = batch["image"], batch["label"]
        order = np.argsort(images[:, 0, 0, 2])
        np.testing.assert_array_equal(images[order], [picture(n) for n in numbers])
        np.testing.assert_array_equal(labels[order], [n % 10 for n in numbers])


@pytest.fixture
def prepared(tmp_path):
    with zipfile.ZipFile(Path(__file__).with_name("cifar10_tiny.zip")) as file:
        file.extractall(tmp_path)
    return tmp_path


def test_cifar10_is_read_without_tensorflow(prepared, tmp_path):
    check(prepared, tmp_path)


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow, which prepares, is not installed"
)
def test_cifar10_is_prepared_from_its_archive(tmp_path):
    (tmp_path / "archives").mkdir()
    archive(tmp_path / "archives")
    command = [
        sys.executable, "-m", "diffjax.cli.main", "prepare", "--dataset=cifar10", f"--data-dir={tmp_path}",
        f"--archives={tmp_path / 'archives'}",
    ]  # fmt: skip
    refused = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "wrong checksum" in refused.stderr.splitlines()[-1]
    done = subprocess.run([*command, "--unverified"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == ["  train: 10", "  test: 2"]
    check(tmp_path, tmp_path)


def test_part_of_a_split(prepared):
    assert len(data.tfds("cifar10", split="train[:30%]", data_dir=prepared)) == 3
    assert len(data.tfds("cifar10", split="train+test", data_dir=prepared)) == 12


def test_the_number_of_classes_is_declared(prepared):
    source = data.tfds("cifar10", data_dir=prepared)
    assert data.Cached(source).num_classes == source.num_classes == 10
    assert not hasattr(source, "labels")


def test_a_data_set_without_labels():
    source = data.Prepared([{"image": np.zeros((4, 4, 1), np.uint8)}] * 3, labelled=False)
    assert source.labels.tolist() == [data.NO_LABEL] * 3
    assert source[1]["label"] == data.NO_LABEL


def test_bad_names(prepared, tmp_path):
    for name, words in (
        ("cats_of_mine", "dataset='cats_of_mine': Dataset cats_of_mine not found"),
        ("cifar10:9.9.9", "dataset='cifar10:9.9.9': .*cannot be loaded at version 9.9.9"),
        (
            "mnist",
            "dataset='mnist' is not prepared in .*mnist.*: diffjax prepare --dataset mnist --data-dir",
        ),
    ):
        with pytest.raises(ValueError, match=words):
            data.tfds(name, data_dir=prepared)
    with pytest.raises(ValueError, match="split='val': Unknown split"):
        data.tfds("cifar10", split="val", data_dir=prepared)


def test_what_is_not_installed_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"`diffjax prepare` needs TensorFlow: pip install 'diffjax\[prepare\]'"):
        prepare.prepare("cifar10", str(tmp_path), None)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ValueError, match=r"dataset='cifar10' needs tensorflow-datasets: pip install 'diffjax\[tfds\]'"):
        data.tfds("cifar10")
