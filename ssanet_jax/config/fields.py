"""What each field of a config may hold by itself: its type, its choices, its range."""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.config import base, flatten
from ssanet_jax.errors import ConfigError

_Test = tuple[str, Callable[[Any], bool]]

# By the type of a field's default; elements of tuples are below.
_TYPES: dict[type, _Test] = {
    bool: ('True or False', lambda v: isinstance(v, bool)),
    int: ('a whole number below 2**31', lambda v: type(v) is int and abs(v) < 2**31),
    float: (
        'a number that float32 holds',
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**127,
    ),
    str: (
        'a text of printable characters',
        lambda v: isinstance(v, str) and v != '' and v.isprintable(),
    ),
}
_ELEMENTS: dict[str, type] = {
    'dataset.mean': float,
    'dataset.std': float,
    'dataset.crop_area': float,
    'dataset.crop_aspect': float,
    'model.attention_stages': int,
    'model.attention_blocks': int,
    'optimizer.decay_epochs': float,
    'optimizer.train_only': str,
}

_CHOICES = {
    'dtype': ('float32', 'bfloat16'),
    'dataset.train_crop': ('resized', 'padded'),
    'dataset.eval_crop': ('center', 'whole'),
    'dataset.interpolation': ('bilinear', 'bicubic'),
    'dataset.bad_eval_images': ('error', 'incorrect'),
    'model.stem': (None, 'imagenet', 'cifar'),
    'model.variant': (None, 'v1', 'v1.5'),
    'model.tail': ('auto', 'folded', 'plain'),
    'model.attention_position': ('pre_residual', 'post_residual'),
    'init.attention': ('load', 'insert'),
    'init.head': ('load', 'new'),
    'optimizer.name': ('sgd', 'adamw'),
    'optimizer.decay_parameters': ('all', 'kernels'),
    'optimizer.schedule': ('step', 'cosine', 'constant'),
}


def _between(lowest: float, highest: float) -> _Test:
    return f'from {lowest} to {highest}', lambda v: lowest <= v <= highest


def _or_auto(test: _Test) -> _Test:
    meaning, holds = test
    return f'{meaning}, or -1', lambda v: v == -1 or holds(v)


_POSITIVE: _Test = ('above 0', lambda v: v > 0)
_NOT_NEGATIVE: _Test = ('at least 0', lambda v: v >= 0)
_SHARE: _Test = ('from 0 up to but not including 1', lambda v: 0 <= v < 1)
_COUNT_OR_AUTO = _or_auto(('at least 1', lambda v: v >= 1))
_SCALED = 'of images scaled to 0..1; divide those of 0..255 by 255'

# Upper bounds are where memory, or an int32, would run out with a traceback.
_RANGES: dict[str, _Test] = {
    'seed': ('from 0 to 2**31 - 1', lambda v: 0 <= v < 2**31),
    'batch_size': _between(1, 2**20),
    'eval_batch_size': _or_auto(_between(1, 2**20)),
    'num_epochs': ('above 0, at most 100000', lambda v: 0 < v <= 100_000),
    'num_train_steps': _COUNT_OR_AUTO,
    'eval_every_steps': _COUNT_OR_AUTO,
    'checkpoint_every_steps': _COUNT_OR_AUTO,
    'max_to_keep': _POSITIVE,
    'log_every_steps': _POSITIVE,
    'profile_start_step': _COUNT_OR_AUTO,
    'profile_num_steps': _POSITIVE,
    'max_loss': _POSITIVE,
    'max_bad_steps': _NOT_NEGATIVE,
    'label_smoothing': _SHARE,
    'dataset.image_size': _between(1, 4096),
    'dataset.crop_padding': _NOT_NEGATIVE,
    'dataset.crop_area': ('two shares, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1),
    'dataset.crop_aspect': ('two ratios, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1]),
    'dataset.eval_crop_pct': _between(0.1, 1),
    'dataset.shuffle_buffer': _between(1, 2**24),
    'dataset.num_threads': _or_auto(_between(1, 1024)),
    'dataset.max_image_pixels': _POSITIVE,
    'dataset.max_image_bytes': _POSITIVE,
    'dataset.max_bad_fraction': _between(0, 1),
    'dataset.mean': (
        f'three numbers from 0 to 1, {_SCALED}',
        lambda v: len(v) == 3 and min(v) >= 0 and max(v) <= 1,
    ),
    'dataset.std': (
        f'three numbers from 0.001 to 1, {_SCALED}',
        lambda v: len(v) == 3 and min(v) >= 0.001 and max(v) <= 1,
    ),
    'model.batch_norm_group_size': _COUNT_OR_AUTO,
    'model.batch_norm_momentum': _SHARE,
    'model.batch_norm_epsilon': _POSITIVE,
    'model.dropout': _SHARE,
    'model.cbam.kernel_size': _between(1, 1023),
    'model.eca.kernel_size': _between(0, 1023),
    'model.eca.gamma': _between(0.1, 100),
    'model.eca.beta': _between(-100, 100),
    'model.simam.regularizer': _POSITIVE,
    'optimizer.learning_rate': _POSITIVE,
    'optimizer.reference_batch_size': _POSITIVE,
    'optimizer.momentum': _SHARE,
    'optimizer.b1': _SHARE,
    'optimizer.b2': _SHARE,
    'optimizer.weight_decay': _NOT_NEGATIVE,
    'optimizer.warmup_epochs': _NOT_NEGATIVE,
    'optimizer.decay_epochs': (
        'rising',
        lambda v: list(v) == sorted(set(v)) and min(v, default=1) > 0,
    ),
    'optimizer.decay_factor': _POSITIVE,
}


def check_fields(values: Mapping[str, Any]) -> None:
    """Checks all fields, by their dotted names; None is allowed where it is the default.

    Raises:
      ConfigError: naming the first field that is wrong, what came, and what was expected.
    """
    defaults = flatten(base())
    types = field_types(base())
    for field, value in values.items():
        if value is not None or defaults[field] is not None:
            _check_type(field, value, types[field])
    for field, choices in _CHOICES.items():
        if values[field] not in choices:
            raise ConfigError(
                f'config.{field}={_shown(values[field])} is not known; '
                f'choose one of {", ".join(map(str, choices))}.'
            )
    for field, (meaning, holds) in _RANGES.items():
        if values[field] is not None and not holds(values[field]):
            raise ConfigError(
                f'config.{field}={_shown(values[field])} is out of range; it must be {meaning}.'
            )


def _check_type(field: str, value: Any, kind: type) -> None:
    many = kind is tuple
    meaning, holds = _TYPES[_ELEMENTS[field] if many else kind]
    listed = isinstance(value, tuple | list)
    if listed != many or not all(map(holds, value if many else [value])):
        expected = f'a tuple, each element {meaning}' if many else meaning
        raise ConfigError(f'config.{field}={_shown(value)} is of the wrong type; give {expected}.')


def field_types(config: ConfigDict) -> dict[str, type]:
    """The type of every leaf by its dotted name; of a placeholder, that of what it stands for."""
    types: dict[str, type] = {}
    for key in config:
        kind = config.get_type(key)
        if kind is ConfigDict:
            types.update({f'{key}.{name}': leaf for name, leaf in field_types(config[key]).items()})
        else:
            types[key] = kind
    return types


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:80]}...'
