"""Files of a workdir."""

import json
from typing import Any

from etils import epath

from ssanet_jax.errors import ConfigError


def saved_config(folder: epath.Path) -> dict[str, Any]:
    """The fields of config.json; raises ConfigError where `folder` is not a run's."""
    if not (folder / 'checkpoints').is_dir():
        raise ConfigError(f'{folder} holds no checkpoints/; name the workdir of a run.')
    path = folder / 'config.json'
    if not path.exists():
        raise ConfigError(f'{folder} holds checkpoints but no config.json; choose a new workdir.')
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f'{path} cannot be read: {" ".join(str(error).split())}. Put a copy back, or choose a '
            'new workdir.'
        ) from error


def saved_classes(folder: epath.Path) -> tuple[str, ...]:
    """The names of classes.json; none where there is no such file."""
    path = folder / 'classes.json'
    try:
        names = json.loads(path.read_text()) if path.exists() else []
        if not isinstance(names, list):
            raise TypeError(f'expected a list of names, got {type(names).__name__}')
        return tuple(map(str, names))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(
            f'{path} cannot be read: {" ".join(str(error).split())}. Put a copy back, or remove it.'
        ) from error
