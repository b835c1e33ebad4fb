"""Weights that torchvision and timm host, by the table hosted.json.

benchmarks/hosted_weights.py makes the table.
"""

import functools
import json
import os
import shutil
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax import weights
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.data.imagenet import imagenet_names
from ssanet_jax.errors import ConfigError, nearest, one_line
from ssanet_jax.models import create_model
from ssanet_jax.pretrained import hub
from ssanet_jax.pretrained.folder import check_sha256, sha256
from ssanet_jax.pretrained.model import PretrainedModel
from ssanet_jax.pretrained.preprocessing import Preprocessing
from ssanet_jax.weights.checkpoint_parts import log

_FILE = 'model.safetensors'
_TIMEOUT = 60  # seconds without a byte


class HostedWeights(NamedTuple):
    """Weights of an ImageNet classifier that another library hosts.

    Attributes:
      source: 'torchvision://resnet50.IMAGENET1K_V2', 'timm://resnet50.a1_in1k', ...
      network: its name here.
      address: URL of the file, or 'user/name' of the repository on the Hugging Face Hub.
      sha256: the published beginning of the file's SHA-256, hexadecimal; None on the Hub, whose
        cache names files by their SHA-256.
      top1, top5: percent on ImageNet's validation set, as the library publishes them.
      license: as the library names it; None if it names none.
      preprocessing: with which they were measured.
    """

    source: str
    network: str
    address: str
    sha256: str | None
    top1: float
    top5: float
    license: str | None
    preprocessing: Preprocessing


@functools.cache
def hosted_weights() -> dict[str, HostedWeights]:
    """All hosted weights by their source."""
    table = json.loads((Path(__file__).parent / 'hosted.json').read_text())
    return {entry['source']: _hosted(**entry) for entry in table['weights']}


def _hosted(preprocessing: dict[str, Any], **entry: Any) -> HostedWeights:
    mean, std = (tuple(preprocessing.pop(name)) for name in ('mean', 'std'))
    return HostedWeights(**entry, preprocessing=Preprocessing(**preprocessing, mean=mean, std=std))


def load_hosted(source: str) -> PretrainedModel:
    """Loads hosted weights from the file that `fetch` finds.

    Raises:
      ConfigError: see `fetch`; or the file cannot be read, for torchvision's without torch.
    """
    path, entry = fetch(source), hosted_weights()[source]
    classes = tuple(imagenet_names().values())
    model = create_model(entry.network, num_classes=len(classes))
    try:
        variables = weights.from_torch(
            weights.load(path, say=lambda _: None),
            model,
            ignore=('aux*',),  # GoogLeNet's auxiliary classifiers
            say=lambda _: None,
        )
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(f'{source}: {one_line(error, 600)}') from error
    return PretrainedModel(entry.network, {}, model, variables, classes, entry.preprocessing)


def fetch(source: str) -> Path:
    """The file of hosted weights, downloaded on first use.

    Its SHA-256 is verified, except on the Hub where the cache has no symbolic links.

    Files of torchvision are in torch hub's cache, and torch reads them; those of timm are
    safetensors in the cache of huggingface_hub.

    Args:
      source: a key of `hosted_weights()`.

    Raises:
      ConfigError: there are no such weights, they cannot be downloaded, or their SHA-256 does not
        begin as published.
    """
    table = hosted_weights()
    if source not in table:
        raise ConfigError(f'There are no weights {source}; nearest: {nearest(source, table)}.')
    entry = table[source]
    return _of_torchvision(entry, entry.sha256) if entry.sha256 else _of_timm(entry)


def _of_torchvision(entry: HostedWeights, expected: str) -> Path:
    path = torch_cache() / entry.address.rpartition('/')[2]
    if not path.is_file():
        log(f'Downloading {entry.address} to {path}')
        download(entry.address, path, expected)
    check_sha256(path, expected, 'remove it, and it is downloaded again')
    return path


def _of_timm(entry: HostedWeights) -> Path:
    path = hub.fetch(entry.address, [_FILE]) / _FILE
    if path.is_symlink():  # else the file system has no links, and the cache no checksums
        check_sha256(path, path.readlink().name, hub.remedy(entry.address))
    return path


def torch_cache() -> Path:
    """Torch hub's checkpoint cache, below TORCH_HOME or ~/.cache/torch."""
    cache = os.environ.get('XDG_CACHE_HOME', '~/.cache')
    home = os.environ.get('TORCH_HOME', os.path.join(cache, 'torch'))
    return Path(home).expanduser() / 'hub' / 'checkpoints'


def download(url: str, path: Path, expected: str) -> None:
    """Downloads a file whose SHA-256 begins with `expected`; another is not kept.

    Raises:
      ConfigError: it cannot be downloaded, or is another file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response, atomic_write(path) as part:
            with part.open('wb') as file:
                shutil.copyfileobj(response, file)
            if not (found := sha256(part)).startswith(expected):
                raise ConfigError(
                    f'{url} is not the published file: its SHA-256 begins with '
                    f'{found[: len(expected)]}, expected {expected}; it was not kept. Try again.'
                )
    except OSError as error:  # urllib's errors are OSErrors too
        raise ConfigError(
            f'{url} cannot be downloaded to {path}: {one_line(error)}. Try again, or put the file '
            'there.'
        ) from error
