"""Prepares an image data set of tensorflow-datasets, so that training can read it without TensorFlow.

diffjax prepare --dataset cifar10 [--data-dir DIR] [--archives FOLDER]

Needs `pip install 'diffjax[prepare]'`, for this command alone. Downloads the files of the data set, or takes its
archives from --archives, under the names that tensorflow-datasets expects (for cifar10: cifar-10-binary.tar.gz), and
writes array_record files under DIR. Some data sets (ImageNet, say) come as archives only: download them by hand first.
"""

import argparse
from pathlib import Path

from diffjax.cli import options
from diffjax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of the command."""
    parser.add_argument("--dataset", required=True, help="its name, such as cifar10 or lsun/church_outdoor")
    parser.add_argument("--data-dir", help="where to write it (default: TFDS_DATA_DIR, or else ~/tensorflow_datasets)")
    parser.add_argument("--archives", type=options.local_path, help="a folder of archives that are on disk already")
    parser.add_argument("--unverified", action="store_true", help="accept archives with another checksum")


def run(args: argparse.Namespace) -> None:
    """Prepares the data set, and prints its folder and its splits."""
    for line in prepare(args.dataset, args.data_dir, args.archives, unverified=args.unverified):
        print(line)


def prepare(dataset: str, data_dir: str | None, archives: Path | None, *, unverified: bool = False) -> list[str]:
    """Prepares a data set, and returns its folder and the sizes of its splits as lines of text.

    Args:
      dataset: its name, such as "cifar10" or "lsun/church_outdoor".
      data_dir: where to write it; None: `TFDS_DATA_DIR`, or else `~/tensorflow_datasets`.
      archives: a folder of archives that are on disk already.
      unverified: whether archives with another checksum are accepted.

    Raises:
      UserError: TensorFlow is not installed, an unknown data set, or an archive that is missing or damaged.
    """
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    except ImportError as error:
        raise UserError(f"`diffjax prepare` needs TensorFlow: pip install 'diffjax[prepare]' ({error})") from error
    if archives is not None and not archives.is_dir():
        raise UserError(f"--archives={archives} must be a folder")
    try:
        builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"--dataset={dataset}: {str(error).splitlines()[0]}") from error
    if unverified and archives is not None:
        for url, known in builder.url_infos.items():
            if known.filename and (archive := archives / known.filename).is_file():
                builder.url_infos[url] = tfds.core.download.checksums.compute_url_info(archive)
    # Google's bucket has tfrecord files, which only TensorFlow can read.
    download = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=download, file_format="array_record")
    except NonMatchingChecksumError as error:
        reason = " ".join(str(error).split("To debug")[0].split())
        raise UserError(f"cannot prepare {dataset}: {reason} (--unverified accepts it)") from error
    except Exception as error:  # TensorFlow and array_record raise many kinds, such as for a full disk
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"cannot prepare {dataset}: {reason}") from error
    return [str(builder.data_path), *(f"  {name}: {split.num_examples}" for name, split in builder.info.splits.items())]
