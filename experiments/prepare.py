"""Prepares an image data set of tensorflow-datasets, so that training can read it without TensorFlow.

python experiments/prepare.py --dataset cifar10 [--data-dir DIR] [--archives FOLDER]

Needs `pip install '.[prepare]'`, for this command alone. Downloads what the data set needs, or takes its archives from
`--archives`, under the names that tensorflow-datasets expects (for cifar10: cifar-10-binary.tar.gz), and writes
array_record files under DIR. Some data sets (ImageNet, say) come from archives only: fetch them by hand first.
"""

import argparse
import sys
from pathlib import Path

from diffjax.errors import UserError


def main() -> None:
    """Parses the command line, prepares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, help="its name, as cifar10 or lsun/church_outdoor")
    parser.add_argument("--data-dir", help="where to (default: TFDS_DATA_DIR, or else ~/tensorflow_datasets)")
    parser.add_argument("--archives", type=Path, help="a folder of archives that are on disk already")
    parser.add_argument("--unverified", action="store_true", help="take archives whose checksum is another")
    args = parser.parse_args()
    try:
        for line in prepare(args.dataset, args.data_dir, args.archives, unverified=args.unverified):
            print(line)
    except UserError as error:
        sys.exit(f"error: {error}")


def prepare(dataset: str, data_dir: str | None, archives: Path | None, *, unverified: bool = False) -> list[str]:
    """Prepares, and tells in lines what there is then.

    Raises:
      UserError: TensorFlow is not installed, no such data set, or an archive that is not what it should be.
    """
    try:
        import tensorflow  # noqa: F401
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    except ImportError as error:
        raise UserError(f"preparing a data set needs TensorFlow: pip install '.[prepare]' ({error})") from error
    if archives is not None and not archives.is_dir():
        raise UserError(f"--archives={archives} is no folder")
    try:
        builder = tfds.builder(dataset, data_dir=data_dir, file_format="array_record")
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"--dataset={dataset}: {str(error).splitlines()[0]}") from error
    if unverified and archives is not None:
        for url, known in builder.url_infos.items():
            if known.filename and (archive := archives / known.filename).is_file():
                builder.url_infos[url] = tfds.core.download.checksums.compute_url_info(archive)
    # Google's bucket has tfrecord files, which nothing but TensorFlow reads.
    options = tfds.download.DownloadConfig(manual_dir=archives, try_download_gcs=False)
    try:
        builder.download_and_prepare(download_config=options, file_format="array_record")
    except NonMatchingChecksumError as error:
        reason = " ".join(str(error).split("To debug")[0].split())
        raise UserError(f"cannot prepare {dataset}: {reason} (--unverified takes it all the same)") from error
    except (tfds.download.DownloadError, AssertionError, OSError) as error:
        raise UserError(f"cannot prepare {dataset}: {' '.join(str(error).split())}") from error
    return [str(builder.data_path), *(f"  {name}: {split.num_examples}" for name, split in builder.info.splits.items())]


if __name__ == "__main__":
    main()
