"""config.json of a folder with weights: what `create_model` and preprocessing need, checked."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ssanet_jax.config.fields import FIELDS
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.models.registry import split_name
from ssanet_jax.output import printable
from ssanet_jax.pretrained.preprocessing import Preprocessing

FILE = 'config.json'
WEIGHTS = 'model.safetensors'

_MAX_BYTES = 2**24
_MAX_NAME = 1000  # characters
_MAX_CLASSES = 2**20
_NORM_FIELDS = {'momentum': 'model.batch_norm_momentum', 'epsilon': 'model.batch_norm_epsilon'}


class ModelConfig(NamedTuple):
    """What config.json says.

    Attributes:
      network, options, classes, preprocessing: see `PretrainedModel`.
      sha256: of the weights, hexadecimal.
    """

    network: str
    options: dict[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    sha256: str


def read(folder: Path) -> ModelConfig:
    """Reads and checks config.json in `folder`, which may come from anyone.

    Raises:
      ConfigError: it is missing, too large, or not as `ssanet publish` writes it.
    """
    path = folder / FILE
    try:
        return _parse(_content(path))
    except (OSError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        reason = f'it has no {error}' if isinstance(error, KeyError) else one_line(error)
        raise ConfigError(
            f'{path} does not describe a network: {printable(reason.rstrip("."))}. Expected a '
            'folder written by ssanet publish, or by ssanet export --format=safetensors.'
        ) from error


def _content(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError('there is no such file')
    with path.open('rb') as file:
        text = file.read(_MAX_BYTES + 1)
    if len(text) > _MAX_BYTES:
        raise ValueError(f'it has more than {_MAX_BYTES:,} bytes')
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f'{name} is not valid JSON')


def _parse(content: Any) -> ModelConfig:
    if content['format'] != 'safetensors':
        raise ValueError(
            f'its network is in format {content["format"]!r:.40}, which docs/export.md shows how '
            'to load'
        )
    network, options, classes = content['network'], content['options'], content['classes']
    _check_network(network, options)
    if not isinstance(classes, list) or not 0 < len(classes) <= _MAX_CLASSES:
        raise ValueError('classes is not a list of names')
    if not all(isinstance(name, str) and len(name) <= _MAX_NAME for name in classes):
        raise ValueError(f'classes has what is not a name of at most {_MAX_NAME:,} characters')
    sha256 = content['sha256'][WEIGHTS]
    if not isinstance(sha256, str) or not re.fullmatch('[0-9a-f]{64}', sha256):
        raise ValueError(f'sha256 of {WEIGHTS} is not 64 hexadecimal digits')
    preprocessing = _preprocessing(content['preprocessing'])
    return ModelConfig(network, options, tuple(classes), preprocessing, sha256)


def _check_network(network: Any, options: Mapping[str, Any]) -> None:
    """Raises ValueError unless these are arguments of `create_model` that a config could give."""
    if not isinstance(network, str) or len(network) > _MAX_NAME:
        raise ValueError('network is not a name')
    kind, _ = split_name(network)
    for name, value in _fields(kind, options):
        if name not in FIELDS or value is None:
            raise ValueError(f'{name!r:.80} is not an option of {network}, or has no value')
        FIELDS[name].verify(value)


def _fields(kind: str | None, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The options with the names of the fields of a config that give them."""
    for name, value in options.items():
        if name == 'attention_options':
            yield from ((f'model.{kind}.{option}', v) for option, v in value.items())
        elif name == 'norm_options':
            yield from ((_NORM_FIELDS.get(option, option), v) for option, v in value.items())
        elif name == 'dtype':
            yield name, value
        else:
            field = FIELDS.get(f'model.{name}')
            yield f'model.{name}' if field and field.network_option else name, value


def _preprocessing(content: Mapping[str, Any]) -> Preprocessing:
    made = Preprocessing(**content)
    checked = {
        'image_size': made.size,
        'interpolation': made.interpolation,
        'mean': made.mean,
        'std': made.std,
        'eval_flip': made.flip,
    }
    for name, value in checked.items():
        FIELDS[f'dataset.{name}'].verify(value)
    resize = made.resize
    if resize is not None and not (type(resize) is int and made.size <= resize <= 10 * made.size):
        raise ValueError(f'resize={resize!r:.40} is not null, or from size to 10 times size')
    return made._replace(mean=tuple(made.mean), std=tuple(made.std))
