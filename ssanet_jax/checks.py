"""Checks of a config, before anything expensive: ranges, relations between fields, devices."""

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.config import ConfigError, base, flatten

_CHOICES = {
    'dtype': ('float32', 'bfloat16'),
    'dataset.reader': ('memory', 'disk'),
    'dataset.interpolation': ('bilinear', 'bicubic'),
    'dataset.bad_eval_images': ('error', 'wrong'),
    'model.stem': (None, 'imagenet', 'cifar'),
    'model.variant': (None, 'v1', 'v1.5'),
    'model.tail': ('auto', 'folded', 'plain'),
    'model.attention_place': ('before_sum', 'after_sum'),
    'init.attention': ('load', 'insert'),
    'init.head': ('load', 'new'),
    'optimizer.name': ('sgd', 'adamw'),
    'optimizer.decay_parameters': ('all', 'kernels'),
    'optimizer.schedule': ('step', 'cosine', 'constant'),
}

_Range = tuple[str, Callable[[Any], bool]]
_POSITIVE: _Range = ('above 0', lambda v: v > 0)
_NOT_NEGATIVE: _Range = ('at least 0', lambda v: v >= 0)
_SHARE: _Range = ('from 0 up to but not including 1', lambda v: 0 <= v < 1)
_COUNT_OR_AUTO: _Range = ('at least 1, or -1', lambda v: v >= 1 or v == -1)

_RANGES: dict[str, _Range] = {
    'seed': ('from 0 to 2**31 - 1', lambda v: 0 <= v < 2**31),
    'batch_size': _POSITIVE,
    'eval_batch_size': _COUNT_OR_AUTO,
    'num_epochs': _POSITIVE,
    'num_train_steps': _COUNT_OR_AUTO,
    'eval_every_steps': _COUNT_OR_AUTO,
    'checkpoint_every_steps': _COUNT_OR_AUTO,
    'keep_checkpoints': _POSITIVE,
    'log_every_steps': _POSITIVE,
    'profile_start_step': _COUNT_OR_AUTO,
    'profile_num_steps': _POSITIVE,
    'label_smoothing': _SHARE,
    'dataset.image_size': _POSITIVE,
    'dataset.crop_padding': _NOT_NEGATIVE,
    'dataset.crop_area': ('two shares, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1),
    'dataset.crop_aspect': ('two ratios, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1]),
    'dataset.eval_crop_fraction': ('above 0, at most 1', lambda v: 0 < v <= 1),
    'dataset.shuffle_buffer': _POSITIVE,
    'dataset.num_threads': _COUNT_OR_AUTO,
    'dataset.max_image_pixels': _POSITIVE,
    'dataset.max_bad_fraction': ('from 0 to 1', lambda v: 0 <= v <= 1),
    'dataset.mean': ('three numbers', lambda v: len(v) == 3),
    'dataset.std': ('three numbers above 0', lambda v: len(v) == 3 and min(v) > 0),
    'model.batch_norm_devices': _COUNT_OR_AUTO,
    'model.batch_norm_momentum': _SHARE,
    'model.batch_norm_epsilon': ('above 0', lambda v: v is None or v > 0),
    'model.dropout': ('from 0 up to but not including 1', lambda v: v is None or 0 <= v < 1),
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

# Fields that only one setting of another field reads.
_READ_BY = {
    'dataset.crop_padding': ('dataset.reader', 'memory'),
    'dataset.crop_area': ('dataset.reader', 'disk'),
    'dataset.crop_aspect': ('dataset.reader', 'disk'),
    'dataset.eval_crop_fraction': ('dataset.reader', 'disk'),
    'dataset.interpolation': ('dataset.reader', 'disk'),
    'dataset.antialias': ('dataset.reader', 'disk'),
    'dataset.shuffle_buffer': ('dataset.reader', 'disk'),
    'dataset.num_threads': ('dataset.reader', 'disk'),
    'dataset.max_image_pixels': ('dataset.reader', 'disk'),
    'dataset.max_bad_fraction': ('dataset.reader', 'disk'),
    'dataset.bad_eval_images': ('dataset.reader', 'disk'),
    'optimizer.momentum': ('optimizer.name', 'sgd'),
    'optimizer.nesterov': ('optimizer.name', 'sgd'),
    'optimizer.b1': ('optimizer.name', 'adamw'),
    'optimizer.b2': ('optimizer.name', 'adamw'),
    'optimizer.decay_epochs': ('optimizer.schedule', 'step'),
    'optimizer.decay_factor': ('optimizer.schedule', 'step'),
}


def check(config: ConfigDict) -> None:
    """Checks fields against their ranges and each other, before anything expensive.

    Raises:
      ConfigError: naming the field, what was expected, what came, and the remedy.
    """
    defaults = flatten(base())
    values = flatten(config)
    for field in values:
        if field not in defaults:
            raise ConfigError(unknown_field(field))
    for field in defaults:
        if field not in values:
            raise ConfigError(f'config.{field} is missing; start the recipe from base().')
    for field, choices in _CHOICES.items():
        if values[field] not in choices:
            raise ConfigError(
                f'config.{field}={values[field]!r} is not known; '
                f'choose one of {", ".join(map(str, choices))}.'
            )
    for field, (meaning, holds) in _RANGES.items():
        if not holds(values[field]):
            raise ConfigError(
                f'config.{field}={values[field]} is out of range; it must be {meaning}.'
            )
    if values['init.weights'] is None:
        for field in ('init.attention', 'init.head'):
            if values[field] != 'load':
                raise ConfigError(
                    f'config.{field}={values[field]!r} has no effect without config.init.weights; '
                    'name a file of weights there, or leave it out.'
                )
    warmup, decays = values['optimizer.warmup_epochs'], values['optimizer.decay_epochs']
    if values['optimizer.schedule'] == 'step' and decays and decays[0] <= warmup:
        raise ConfigError(
            f'config.optimizer.decay_epochs={decays} begins inside the warm-up of {warmup} '
            'epochs; decay later, or shorten optimizer.warmup_epochs.'
        )


def check_overrides(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Checks that each field that a user overrode is read with the rest of `config`.

    A recipe's own fields are not checked: overriding its schedule, say, must not trip over
    its decay epochs. Raises ConfigError.
    """
    values = flatten(config)
    for field in overridden:
        if field in _READ_BY:
            reader, wanted = _READ_BY[field]
            if values[reader] != wanted:
                raise ConfigError(
                    f'config.{field}={values[field]} has no effect with '
                    f'config.{reader}={values[reader]!r}; remove it, or set {wanted!r} there.'
                )
        kind = field.split('.')[1] if field.count('.') == 2 else ''
        name = values['model.name']
        if kind and not name.startswith(f'{kind}_'):
            raise ConfigError(
                f'config.{field}={values[field]!r} has no effect on config.model.name={name!r}; '
                f'remove it, or choose a {kind}_ model.'
            )


# What may differ when a run is resumed: it changes nothing that was already done.
_MAY_CHANGE = {
    'num_epochs',
    'num_train_steps',
    'eval_batch_size',
    'eval_every_steps',
    'checkpoint_every_steps',
    'keep_checkpoints',
    'log_every_steps',
    'profile_start_step',
    'profile_num_steps',
    'dataset.data_dir',
    'dataset.manual_dir',
    'dataset.num_threads',
    'dataset.max_bad_fraction',
    'dataset.bad_eval_images',
    'model.tail',
}


def check_same_run(
    config: ConfigDict, saved: Mapping[str, Any], only: tuple[str, ...] = ('',)
) -> None:
    """Checks that `config` belongs to the run whose config.json holds `saved`.

    Args:
      config: to go on with.
      saved: to go on from.
      only: beginnings of the names of the fields to compare.

    Raises:
      ConfigError: listing what differs, if it would change the meaning of the run.
    """
    now = flatten(ConfigDict(json.loads(config.to_json())))
    # A field that is newer than the run had its default's effect.
    before = {**flatten(ConfigDict(json.loads(base().to_json()))), **flatten(ConfigDict(saved))}
    changed = [
        f'{field} was {before.get(field)!r} and is {now.get(field)!r}'
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
        and field not in _MAY_CHANGE
        and field.startswith(only)
    ]
    if changed:
        raise ConfigError(
            f'The run in this workdir has another config: {"; ".join(changed)}. '
            'Choose a new workdir, or the old values.'
        )


def check_batch_size(config: ConfigDict, num_devices: int) -> None:
    """Checks that every device gets as many training images; raises ConfigError."""
    size = config.batch_size
    if size % num_devices:
        below = size // num_devices * num_devices
        fits = [str(n) for n in (below, below + num_devices) if n > 0]
        verb = 'sizes that fit are' if len(fits) > 1 else 'size that fits is'
        raise ConfigError(
            f'config.batch_size={size} cannot be split over {num_devices} devices. It counts '
            f'images on all devices together; the nearest {verb} {" and ".join(fits)}.'
        )


def check_batch_norm_devices(config: ConfigDict, num_devices: int) -> None:
    """Checks that the devices split into groups that share statistics; raises ConfigError."""
    shared = config.model.batch_norm_devices
    if shared > 0 and num_devices % shared:
        divisors = [str(d) for d in range(1, num_devices + 1) if num_devices % d == 0]
        raise ConfigError(
            f'config.model.batch_norm_devices={shared} does not divide {num_devices} devices; '
            f'choose one of {", ".join(divisors)}, or -1 for all.'
        )


def unknown_field(field: str) -> str:
    """The error message for a field that does not exist, naming the nearest ones."""
    known = list(flatten(base()))
    leaf = field.rpartition('.')[2]
    same_leaf = [
        k for k in known if difflib.SequenceMatcher(a=k.rpartition('.')[2], b=leaf).ratio() > 0.7
    ]
    nearest = difflib.get_close_matches(field, known, n=3) or same_leaf
    hint = f'nearest: {", ".join(nearest)}' if nearest else f'known: {", ".join(known)}'
    return f'config.{field} does not exist; {hint}.'
