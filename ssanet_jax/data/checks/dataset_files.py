"""The files that a run reads, and cheap ways to notice that one was replaced."""

import hashlib
import os
from pathlib import PurePath

from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.data.builders import open_builder
from ssanet_jax.data.datasets.array_dataset import ArrayDataset
from ssanet_jax.data.datasets.image_folder import ImageFolder
from ssanet_jax.errors import file_errors

_SAMPLE = 2**16  # bytes at each end of a file


def dataset_files(dataset: ConfigDict) -> dict[str, str]:
    """The path of each file of both splits of `config.dataset`, by its name."""
    builder = open_builder(dataset)
    files: dict[str, str] = {}
    for split in (dataset.train_split, dataset.eval_split):
        if isinstance(builder, ImageFolder):
            files |= {file.name: file.path for file in builder.select(split)}
        elif not isinstance(builder, ArrayDataset):
            paths = [str(part.filename) for part in builder.info.splits[split].file_instructions]
            files |= {PurePath(path).name: path for path in paths}
    return files


def status(path: str) -> tuple[int, int]:
    """Bytes, and nanoseconds of the last change; zeros if it cannot be told."""
    try:
        if '://' in path:
            remote = epath.Path(path).stat()
            return remote.length, remote.mtime * 10**9
        local = os.stat(path)
    except file_errors():
        return 0, 0
    return local.st_size, local.st_mtime_ns


def sample_digest(path: str) -> str:
    """A digest of the first and the last 64 KiB; '' if they cannot be read.

    Another shard differs there; damage elsewhere is found by the checksums of its records.
    """
    try:
        with epath.Path(path).open('rb') as file:
            digest = hashlib.blake2b(file.read(_SAMPLE), digest_size=16)
            file.seek(max(0, epath.Path(path).stat().length - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    except file_errors(ValueError):
        return ''
    return digest.hexdigest()
