"""Sources: random access to labelled images in arrays, files and data sets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict

import numpy as np

from diffjax.registry import Registry

SOURCES = Registry("source")
"""Functions (options) → `Source`. They may have an attribute `extra_figures`, the import path of a function with the
parameters of `metrics.digits_svm.extra_figures`: `diffjax evaluate` reports the figures that it returns."""

NO_LABEL = -1
"""The label of an image without a label."""

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


class Example(TypedDict):
    """One labelled image."""

    image: np.ndarray
    """uint8 `[H, W, C]`."""
    label: int
    condition: NotRequired[np.ndarray]
    """uint8 `[H, W, C]`: the degraded image, in sources of pairs."""


class Source(Protocol):
    """Any object with a length and `source[i] → Example`; sizes may differ between images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class ArraySource:
    """A source held in memory.

    Args:
      images: uint8 `[N, H, W, C]`.
      labels: int `[N]`; None gives each image `NO_LABEL`.

    Raises:
      ValueError: another dtype or shape.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        labels = np.full(len(images), NO_LABEL) if labels is None else labels
        if (
            images.dtype != np.uint8
            or images.ndim != 4
            or labels.shape != images.shape[:1]
            or labels.dtype.kind not in "iu"
        ):
            raise ValueError(
                f"images must be uint8 [N, H, W, C] and labels whole numbers [N]; these are {images.dtype} "
                f"{images.shape} and {labels.dtype} {labels.shape}"
            )
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return {"image": self.images[index], "label": int(self.labels[index])}


class Subset:
    """The examples of a source at given indices."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]

    @property
    def labels(self) -> np.ndarray:
        """The labels, int `[N]`; only if the source stores them separately from its images."""
        return self.source.labels[self.indices]


@SOURCES.register
def digits() -> ArraySource:
    """Loads scikit-learn's bundled digits: 1,797 handwritten digits, 8×8×1, with 16 grey levels scaled to 0 … 255."""
    from sklearn.datasets import load_digits

    bundle = load_digits()
    return ArraySource(np.round(bundle.images * (255 / 16)).astype(np.uint8)[..., None], bundle.target)


digits.extra_figures = "diffjax.metrics.digits_svm:extra_figures"


@SOURCES.register
def npz(path: str | os.PathLike, *, image_key: str = "x_train", label_key: str | None = None) -> ArraySource:
    """Loads arrays of a NumPy archive.

    Args:
      path: the path of the `.npz` file.
      image_key: the name of the images in the file, uint8 `[N, H, W, C]`, or `[N, H, W]` for one channel.
      label_key: the name of the labels in the file, int `[N]` or `[N, 1]`; None: no labels.

    Raises:
      ValueError: a file or name that does not exist, or arrays of another dtype or shape.
    """
    if not Path(path).is_file():
        raise ValueError(f"path={str(path)!r} must be an existing file")
    with np.load(path) as archive:
        for name in filter(None, (image_key, label_key)):
            if name not in archive:
                raise ValueError(f"{name!r} is not in {path}; it has {', '.join(map(repr, archive.files))}")
        pixels, numbers = archive[image_key], None if label_key is None else archive[label_key]
    if numbers is not None and numbers.ndim == 2:
        numbers = numbers.squeeze(1)
    return ArraySource(pixels[..., None] if pixels.ndim == 3 else pixels, numbers)


class Folder:
    """The image files below a folder, sorted by path; made by `folder`."""

    def __init__(self, paths: Sequence[str], labels: np.ndarray):
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        return {"image": _decode(self.paths[index]), "label": int(self.labels[index])}


@SOURCES.register
def folder(path: str | os.PathLike) -> Folder:
    """Finds the image files below a folder. Grey images have one channel, all others become RGB.

    The label is the index of the top-level subfolder among all, sorted; images outside subfolders have `NO_LABEL`.

    Args:
      path: the path of the folder.

    Raises:
      ValueError: no such folder, or no images in it; on reading, an image that cannot be decoded.
    """
    root = Path(path)
    if not root.is_dir():
        raise ValueError(f"path={str(path)!r} must be an existing folder")
    files = sorted(file.relative_to(root) for file in root.rglob("*") if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ValueError(f"path={str(path)!r} must hold images, whose names end in {', '.join(sorted(_SUFFIXES))}")
    classes = [file.parts[0] if len(file.parts) > 1 else None for file in files]
    numbers = {name: number for number, name in enumerate(sorted({*classes} - {None}))}
    labels = np.array([numbers.get(name, NO_LABEL) for name in classes])
    return Folder([str(root / file) for file in files], labels)


class Pairs:
    """Two folders of the same images, sharp and degraded; made by `pairs`."""

    def __init__(self, images: Folder, conditions: Folder):
        self.images, self.conditions = images, conditions

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        return self.images[index] | {"condition": self.conditions[index]["image"]}


@SOURCES.register
def pairs(path: str | os.PathLike, *, image_key: str = "sharp", condition_key: str = "blur") -> Pairs:
    """Finds pairs of image files below a folder: `…/sharp/NAME` and its degraded version `…/blur/NAME`.

    Args:
      path: the path of the folder.
      image_key: the name of the subfolders with the sharp images, at any depth.
      condition_key: the name of the subfolders with the degraded images.

    Raises:
      ValueError: as in `folder`; no such subfolders, or a file without its counterpart.
    """
    files = [Path(file).relative_to(path) for file in folder(path).paths]

    def inside(name):
        return {
            tuple("*" if part == name else part for part in file.parts): str(Path(path) / file)
            for file in files
            if name in file.parts[:-1]
        }

    sharp, blurred = inside(image_key), inside(condition_key)
    if not sharp or sharp.keys() != blurred.keys():
        without = sorted((sharp | blurred)[key] for key in sharp.keys() ^ blurred.keys())
        raise ValueError(
            f"path={str(path)!r}: "
            + (f"{without[0]} has no counterpart" if without else f"it has no folders {image_key!r}")
        )
    keys = sorted(sharp)
    return Pairs(*(Folder([files[key] for key in keys], np.full(len(keys), NO_LABEL)) for files in (sharp, blurred)))


class Cached:
    """The examples of a source, each kept in memory after its first read (in each process that reads)."""

    def __init__(self, source: Source):
        self.source, self._kept = source, {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        if index not in self._kept:
            self._kept[index] = self.source[index]
        return self._kept[index]

    @property
    def labels(self) -> np.ndarray:
        """The labels, int `[N]`; only if the source stores them separately from its images."""
        return self.source.labels


def _decode(path: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise ValueError(f"its pixels are {image.mode!r}, not 8 bits per channel")
            pixels = np.array(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


class Prepared:
    """A split of a data set of tensorflow-datasets, prepared on disk; made by `tfds`."""

    def __init__(self, examples: Sequence[dict], *, labelled: bool):
        self._examples, self._labelled = examples, labelled

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        example = self._examples[index]
        return {"image": example["image"], "label": int(example["label"]) if self._labelled else NO_LABEL}


@SOURCES.register
def tfds(dataset: str, *, split: str = "train", data_dir: str | os.PathLike | None = None) -> Prepared:
    """Opens an image data set of tensorflow-datasets that `diffjax prepare` has prepared. Needs no TensorFlow.

    The image is the feature "image"; the label is the feature "label", if there is one.

    Args:
      dataset: the name of the data set, such as "cifar10", "lsun/church_outdoor" or "cifar10:3.0.2".
      split: the part of the data set, such as "train", "test", "train[:90%]" or "train+test".
      data_dir: the folder of the prepared data sets; None: `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.

    Raises:
      ValueError: a data set or split that does not exist, is not prepared, or has no images.
    """
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise ValueError(f"dataset={dataset!r} needs tensorflow-datasets: pip install 'diffjax[tfds]'") from error

    try:
        builder = tensorflow_datasets.builder(dataset, data_dir=data_dir, file_format="array_record")
    except (tensorflow_datasets.core.DatasetNotFoundError, ValueError, AssertionError) as error:
        raise ValueError(f"dataset={dataset!r}: {str(error).splitlines()[0]}") from error
    command = f"diffjax prepare --dataset {dataset}" + (f" --data-dir {data_dir}" if data_dir else "")
    if not builder.is_prepared():
        raise ValueError(f"dataset={dataset!r} is not prepared in {builder.data_path}: {command}")
    features = builder.info.features
    if "image" not in features:
        raise ValueError(f"dataset={dataset!r} has no feature 'image'; it has {', '.join(map(repr, features))}")
    try:
        return Prepared(builder.as_data_source(split), labelled="label" in features)
    except ValueError as error:
        raise ValueError(f"split={split!r}: {error}") from error


@SOURCES.register
def unknown() -> Source:
    """Stands for the unknown training images of an imported network; it cannot be read.

    Raises:
      ValueError: always.
    """
    raise ValueError("the images that this network was trained on are not known")


def split(source: Source, holdout: float, seed: int) -> tuple[Source, Source]:
    """Splits a source into (training, held out): a random share `holdout`, the same for the same seed, is held out.

    Args:
      source: the source.
      holdout: the share to hold out, in [0, 1).
      seed: the seed of the permutation.

    Raises:
      ValueError: `holdout` outside [0, 1), or no image left to train on.
    """
    if not 0.0 <= holdout < 1.0:
        raise ValueError(f"holdout={holdout} must be within [0, 1)")
    order = np.random.default_rng(seed).permutation(len(source))
    held, kept = np.split(order, [round(holdout * len(source))])
    if not len(kept):
        raise ValueError(f"holdout={holdout} must leave at least one of the {len(source)} images to train on")
    return Subset(source, np.sort(kept)), Subset(source, np.sort(held))
