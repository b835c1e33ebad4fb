"""A trained network from wherever it is: a run, a folder, the Hub, torchvision or timm."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Union

from ssanet_jax.errors import ConfigError
from ssanet_jax.pretrained import description, hub
from ssanet_jax.pretrained.folder import load_folder
from ssanet_jax.pretrained.hosted import load_hosted
from ssanet_jax.pretrained.model import PretrainedModel

if TYPE_CHECKING:
    from ssanet_jax.trained.load import TrainedModel

AnyModel = Union['TrainedModel', PretrainedModel]


def load(source: str | os.PathLike[str], checkpoint: str = 'best') -> AnyModel:
    """Loads a network with its weights, preprocessing and class names; see `ssanet_jax.load`."""
    name = os.path.expanduser(os.fspath(source))
    scheme, _, rest = name.partition('://')
    folder = Path(name)
    published = (folder / description.FILE).is_file() and not (folder / 'checkpoints').is_dir()
    if checkpoint != 'best' and (published or scheme in ('hf', 'torchvision', 'timm')):
        raise ConfigError(f'{name} has only one checkpoint; omit checkpoint={checkpoint!r}.')
    if scheme == 'hf':
        repo, _, revision = rest.partition('@')
        fetched = hub.fetch(repo, (description.FILE, description.WEIGHTS), revision or None)
        return load_folder(fetched, hub.remedy(repo))
    if scheme in ('torchvision', 'timm'):
        return load_hosted(name)
    if published:
        return load_folder(folder)
    if not rest and not folder.is_dir():
        raise ConfigError(
            f'{name} is not a folder; expected a run, a published or exported folder, '
            'hf://USER/NAME, torchvision://NETWORK.WEIGHTS or timm://NETWORK.TAG.'
        )
    from ssanet_jax.trained.load import load_trained

    return load_trained(name, checkpoint)
