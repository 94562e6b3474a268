"""Sources: random access to labelled images in arrays, files and data sets."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NotRequired, Protocol, TypedDict

import numpy as np

from diffjax.data.arrays import check_images, check_labels
from diffjax.data.image_files import find_images, read_image, read_shape
from diffjax.files import read_npz
from diffjax.registry import Registry

SOURCES = Registry("source")
"""Functions (options) → `Source`. They may have an attribute `extra_figures`, the import path of a function with the
parameters of `metrics.digits_svm.extra_figures`: `diffjax evaluate` reports the figures that it returns."""

NO_LABEL = -1
"""The label of an image without a label."""


class Example(TypedDict):
    """One labelled image."""

    image: np.ndarray
    """uint8 `[H, W, C]`."""
    label: int
    condition: NotRequired[np.ndarray]
    """uint8 `[H, W, C]`, as high and wide as the image: the degraded image, in sources of pairs."""
    file: NotRequired[str]
    """The path of the image, in sources of files; errors name it."""


class Source(Protocol):
    """Any object with a length and `source[i] → Example`; sizes may differ between images.

    It may have an attribute `labels`, int `[N]`, which lets all labels be checked before training without reading an
    image, or else `num_classes`: its labels are 0 … num_classes - 1.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class ArraySource:
    """A source held in memory.

    Args:
      images: uint8 `[N, H, W, C]`.
      labels: int `[N]`, `NO_LABEL` or ≥ 0; None gives each image `NO_LABEL`.

    Raises:
      ValueError: another dtype or shape.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray | None = None):
        check_images(images)
        self.images, self.labels = images, np.full(len(images), NO_LABEL) if labels is None else labels
        check_labels(self.labels, len(images))

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
      ValueError: a file or name that does not exist, a damaged file, no images, or arrays of another dtype or shape.
    """
    arrays = read_npz(path, [image_key] if label_key is None else [image_key, label_key])
    images, labels = arrays[image_key], None if label_key is None else arrays[label_key]
    images = images[..., None] if images.ndim == 3 else images
    check_images(images, f"{image_key!r} of {path}")
    if not len(images):
        raise ValueError(f"{image_key!r} of {path} holds 0 images")
    if labels is not None:
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        check_labels(labels, len(images), f"{label_key!r} of {path}")
    return ArraySource(images, labels)


class Folder:
    """The image files below a folder, sorted by path; made by `folder`."""

    def __init__(self, paths: Sequence[str], labels: np.ndarray):
        self.paths, self.labels = paths, labels

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        file = self.paths[index]
        return {"image": read_image(file), "label": int(self.labels[index]), "file": file}


@SOURCES.register
def folder(path: str | os.PathLike) -> Folder:
    """Finds the image files below a folder. Grey images have one channel, all others become RGB.

    The label is the index of the top-level subfolder among all, sorted; images outside subfolders have `NO_LABEL`.
    Links are followed, and names that begin with "." are left out. Images are turned as their Exif orientation says,
    and composited over white where they are transparent.

    Args:
      path: the path of the folder.

    Raises:
      ValueError: no such folder, no images or a broken link in it; on reading, an image that cannot be decoded.
    """
    files = find_images(path)
    classes = [file.parts[0] if len(file.parts) > 1 else None for file in files]
    numbers = {name: number for number, name in enumerate(sorted({*classes} - {None}))}
    labels = np.array([numbers.get(name, NO_LABEL) for name in classes])
    return Folder([str(Path(path) / file) for file in files], labels)


class Pairs:
    """Two folders of the same images, sharp and degraded; made by `pairs`."""

    def __init__(self, images: Folder, conditions: Folder):
        self.images, self.conditions = images, conditions

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        example, degraded = self.images[index], self.conditions[index]
        sizes = [found["image"].shape[1::-1] for found in (example, degraded)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"an image and its degraded version must be of one size, but {example['file']} is "
                f"{sizes[0][0]}×{sizes[0][1]} and {degraded['file']} is {sizes[1][0]}×{sizes[1][1]}"
            )
        return {**example, "condition": degraded["image"]}

    @property
    def labels(self) -> np.ndarray:
        """The labels, int `[N]`: all are `NO_LABEL`."""
        return self.images.labels

    def check_sizes(self) -> None:
        """Checks that both images of each pair are of one size, from the headers of the files.

        Raises:
          ValueError: a pair of two sizes, or a file that is no image.
        """
        for index, paths in enumerate(zip(self.images.paths, self.conditions.paths, strict=True)):
            image, condition = map(read_shape, paths)
            if image[:2] != condition[:2]:
                self[index]  # raises, unless an orientation that headers do not show makes up for the difference


@SOURCES.register
def pairs(path: str | os.PathLike, *, image_key: str = "sharp", condition_key: str = "blur") -> Pairs:
    """Finds pairs of image files below a folder: `…/sharp/NAME` and its degraded version `…/blur/NAME`.

    Args:
      path: the path of the folder.
      image_key: the name of the subfolders with the sharp images, at any depth.
      condition_key: the name of the subfolders with the degraded images.

    Raises:
      ValueError: as in `folder`; no such subfolders, a file without its counterpart, or a pair of two sizes.
    """
    files = find_images(path)

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
    found = Pairs(*(Folder([files[key] for key in keys], np.full(len(keys), NO_LABEL)) for files in (sharp, blurred)))
    found.check_sizes()
    return found


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

    @property
    def num_classes(self) -> int:
        """The number of classes; only if the source declares it."""
        return self.source.num_classes


class Prepared:
    """A split of a data set of tensorflow-datasets, prepared on disk; made by `tfds`.

    Args:
      examples: the examples, with "image" and, in a labelled data set, "label".
      labelled: whether there are labels; else the attribute `labels` says that there are none.
      num_classes: the number of classes that the data set declares, the attribute `num_classes`; None if it does not.
    """

    def __init__(self, examples: Sequence[dict], *, labelled: bool, num_classes: int | None = None):
        self._examples, self._labelled = examples, labelled
        if not labelled:
            self.labels = np.full(len(examples), NO_LABEL)
        self.num_classes = num_classes

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
        examples = builder.as_data_source(split)
    except ValueError as error:
        raise ValueError(f"split={split!r}: {error}") from error
    labelled = "label" in features
    num_classes = getattr(features["label"], "num_classes", None) if labelled else None
    return Prepared(examples, labelled=labelled, num_classes=num_classes)


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
