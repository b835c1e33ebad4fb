"""Checks of a config, before anything expensive: its fields, their relations, the devices."""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.config import base, flatten
from ssanet_jax.config.fields import check_fields
from ssanet_jax.errors import ConfigError

# Fields that only one setting of another field reads.
_READ_BY = {
    'num_epochs': ('num_train_steps', -1),
    'dataset.crop_padding': ('dataset.train_crop', 'padded'),
    'dataset.crop_area': ('dataset.train_crop', 'resized'),
    'dataset.crop_aspect': ('dataset.train_crop', 'resized'),
    'dataset.antialias': ('dataset.train_crop', 'resized'),
    'dataset.eval_crop_pct': ('dataset.eval_crop', 'center'),
    'dataset.shuffle_buffer': ('dataset.in_memory', False),
    'optimizer.momentum': ('optimizer.name', 'sgd'),
    'optimizer.nesterov': ('optimizer.name', 'sgd'),
    'optimizer.b1': ('optimizer.name', 'adamw'),
    'optimizer.b2': ('optimizer.name', 'adamw'),
    'optimizer.decay_epochs': ('optimizer.schedule', 'step'),
    'optimizer.decay_factor': ('optimizer.schedule', 'step'),
}


def check(config: ConfigDict) -> None:
    """Checks fields against their types, their ranges and each other, before anything expensive.

    Raises:
      ConfigError: naming the field, what was expected, what came, and the remedy.
    """
    values = check_names(config)
    check_fields(values)
    _check_relations(values)


def check_names(config: ConfigDict) -> dict[str, Any]:
    """All fields by their dotted names; raises ConfigError where one is missing or unknown."""
    try:
        values = flatten(config)
    except Exception as error:  # whatever a reference's arithmetic raises
        raise ConfigError(
            f'The config has a field that cannot be read: {" ".join(str(error).split())}; set it '
            'in the recipe.'
        ) from error
    defaults = flatten(base())
    for field in values:
        if field not in defaults:
            raise ConfigError(unknown_field(str(field)))
    for field in defaults:
        if field not in values:
            raise ConfigError(f'config.{field} is missing; start the recipe from base().')
    return values


def _check_relations(values: Mapping[str, Any]) -> None:
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
    padding, size = values['dataset.crop_padding'], values['dataset.image_size']
    if values['dataset.train_crop'] == 'padded' and padding >= size:
        raise ConfigError(
            f'config.dataset.crop_padding={padding} leaves crops without a pixel of their image; '
            f'choose less than config.dataset.image_size={size}.'
        )
    for field in ('batch_size', 'eval_batch_size'):
        if values[field] * size**2 > 2**36:
            raise ConfigError(
                f'config.{field}={values[field]} images of {size} x {size} pixels are more than '
                f'2**36 pixels; choose at most {2**36 // size**2} images, or smaller ones.'
            )


def check_overrides(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Checks `config`, and that each field that a user overrode is read with the rest of it.

    A recipe's own fields may be without effect: overriding its schedule, say, must not trip over
    its decay epochs. Raises ConfigError.
    """
    check(config)
    values, overridden = flatten(config), set(overridden)
    for field in sorted(overridden):
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
    _check_read(values, overridden)


def _check_read(values: Mapping[str, Any], overridden: set[str]) -> None:
    crops = values['dataset.train_crop'], values['dataset.eval_crop']
    if 'dataset.interpolation' in overridden and crops == ('padded', 'whole'):
        raise ConfigError(
            f'config.dataset.interpolation={values["dataset.interpolation"]!r} has no effect with '
            "config.dataset.train_crop='padded' and config.dataset.eval_crop='whole'; remove it."
        )
    if 'profile_num_steps' in overridden and values['profile_start_step'] == -1:
        raise ConfigError(
            f'config.profile_num_steps={values["profile_num_steps"]} has no effect without '
            'config.profile_start_step; set it to the first step of the trace.'
        )
    decays, epochs = values['optimizer.decay_epochs'], values['num_epochs']
    if (
        'optimizer.decay_epochs' in overridden
        and values['num_train_steps'] == -1
        and max(decays, default=0) >= epochs
    ):
        raise ConfigError(
            f'config.optimizer.decay_epochs={decays} goes on after the end of the run, which is '
            f'config.num_epochs={epochs}; they are epochs, not steps: leave out those behind it.'
        )


# What may differ when a run is resumed: it changes nothing that was already done.
_MAY_CHANGE = {
    'num_epochs',
    'num_train_steps',
    'max_loss',
    'eval_batch_size',
    'eval_every_steps',
    'checkpoint_every_steps',
    'max_to_keep',
    'log_every_steps',
    'log_gates',
    'profile_start_step',
    'profile_num_steps',
    'dataset.data_dir',
    'dataset.manual_dir',
    'dataset.num_threads',
    'dataset.max_bad_fraction',
    'dataset.bad_eval_images',
    'model.tail',
}


def changed_fields(config: ConfigDict, saved: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How `config` differs from `saved`, the fields of a run's config.json.

    Returns:
      What would change the meaning of the run, and what would not, as 'seed was 0 and is 1'.
    """
    now = flatten(ConfigDict(json.loads(config.to_json())))
    # A field that is newer than the run had its default's effect.
    before = {**flatten(ConfigDict(json.loads(base().to_json()))), **flatten(ConfigDict(saved))}
    changed = {
        field: f'{field} was {before.get(field)!r} and is {now.get(field)!r}'
        for field in sorted(before.keys() | now.keys())
        if before.get(field) != now.get(field)
    }
    # A cosine ends with the run: another length is another learning rate at every step.
    length = {'num_epochs', 'num_train_steps'} if now['optimizer.schedule'] == 'cosine' else set()
    harmless = [text for field, text in changed.items() if field in _MAY_CHANGE - length]
    return [text for text in changed.values() if text not in harmless], harmless


def check_same_model(config: ConfigDict, saved: Mapping[str, Any]) -> None:
    """Checks that `config` can evaluate the checkpoints of a run; raises ConfigError.

    Args:
      config: to evaluate with.
      saved: the fields of the run's config.json.
    """
    changed, _ = changed_fields(config, saved)
    changed = [text for text in changed if text.startswith(('model.', 'optimizer.'))]
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


def check_batch_norm_group_size(config: ConfigDict, num_devices: int) -> None:
    """Checks that the devices split into groups that share statistics; raises ConfigError."""
    shared = config.model.batch_norm_group_size
    if shared > 0 and num_devices % shared:
        divisors = [str(d) for d in range(1, num_devices + 1) if num_devices % d == 0]
        raise ConfigError(
            f'config.model.batch_norm_group_size={shared} does not divide {num_devices} devices; '
            f'choose one of {", ".join(divisors)}, or -1 for all.'
        )


def unknown_field(field: str) -> str:
    """The error message for a field that does not exist, naming the nearest ones."""
    known = list(flatten(base()))
    inside = [k for k in known if k.startswith(f'{field}.')]
    if inside:
        one = f'{field}.name' if f'{field}.name' in inside else inside[0]
        return f'config.{field} is a group of fields; set one of them, as config.{one}.'
    leaf = field.rpartition('.')[2]
    same_leaf = [
        k for k in known if difflib.SequenceMatcher(a=k.rpartition('.')[2], b=leaf).ratio() > 0.7
    ]
    nearest = difflib.get_close_matches(field, known, n=3) or same_leaf
    hint = f'nearest: {", ".join(nearest)}' if nearest else f'known: {", ".join(known)}'
    return f'config.{field} does not exist; {hint}.'
