"""Checks of a config, before anything expensive: its fields, their relations, the devices."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.config.defaults import base, flatten
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.errors import ConfigError, nearest, one_line

_MAX_PIXELS = 2**36  # in a batch

# Fields, or their beginnings, that decide what a checkpoint is and how its images are read.
# Fields that only evaluation reads, such as dataset.eval_size, may differ.
_EVALUATED = (
    'model.', 'dtype', 'dataset.name', 'dataset.validation_share', 'dataset.split_seed',
    'dataset.image_size', 'dataset.mean', 'dataset.std', 'dataset.interpolation',
    'dataset.max_image_',
)  # fmt: skip


def check(config: ConfigDict) -> None:
    """Checks each field, and fields against each other.

    Raises:
      ConfigError: naming the field, what was expected, what came, and the remedy.
    """
    values = check_names(config)
    for name, field in FIELDS.items():
        field.verify(values[name])
    _check_decay(values)
    _check_knots(values)
    _check_sizes(values)
    _check_growth(values)


def check_names(config: ConfigDict) -> dict[str, Any]:
    """The fields by dotted name; raises ConfigError if one is missing or unknown."""
    try:
        values = flatten(config)
    except Exception as error:  # whatever the arithmetic of a reference raises
        raise ConfigError(
            f'The config has a field that cannot be read: {one_line(error)}; set it in the recipe.'
        ) from error
    for name in values:
        if name not in FIELDS:
            raise ConfigError(unknown_field(str(name)))
    for name in FIELDS:
        if name not in values:
            raise ConfigError(f'config.{name} is missing; start the recipe from base().')
    return values


def _check_decay(values: Mapping[str, Any]) -> None:
    warmup, decays = values['optimizer.warmup_epochs'], values['optimizer.decay_epochs']
    if values['optimizer.schedule'] == 'step' and decays and decays[0] <= warmup:
        raise ConfigError(
            f'config.optimizer.decay_epochs={decays} begins inside the warm-up of {warmup} '
            'epochs; decay later, or shorten optimizer.warmup_epochs.'
        )


def _check_knots(values: Mapping[str, Any]) -> None:
    epochs, factors = values['optimizer.knot_epochs'], values['optimizer.knot_factors']
    if len(epochs) != len(factors):
        raise ConfigError(
            f'config.optimizer.knot_epochs={epochs} and knot_factors={factors} differ in length; '
            'give one factor for each epoch.'
        )


def _check_sizes(values: Mapping[str, Any]) -> None:
    padding, size = values['dataset.crop_padding'], values['dataset.image_size']
    if values['dataset.train_crop'] == 'padded' and padding >= size:
        raise ConfigError(
            f'config.dataset.crop_padding={padding} allows crops without a pixel of the image; '
            f'choose less than config.dataset.image_size={size}.'
        )
    if values['dataset.cutout'] >= size:
        raise ConfigError(
            f'config.dataset.cutout={values["dataset.cutout"]} erases whole crops; choose less '
            f'than config.dataset.image_size={size}.'
        )
    eval_size = values['dataset.eval_size'] if values['dataset.eval_size'] > 0 else size
    evaluated = 'eval_batch_size' if values['eval_batch_size'] > 0 else 'batch_size'
    for name, side in (('batch_size', size), (evaluated, eval_size)):
        if values[name] * side**2 > _MAX_PIXELS:
            raise ConfigError(
                f'config.{name}={values[name]} images of {side} x {side} pixels exceed 2**36 '
                f'pixels; choose at most {_MAX_PIXELS // side**2} images, or smaller ones.'
            )


def _check_growth(values: Mapping[str, Any]) -> None:
    first, last = values['dataset.initial_size'], values['dataset.image_size']
    if first < 0:
        return
    if values['dataset.train_crop'] == 'padded':
        raise ConfigError(
            f"config.dataset.initial_size={first} needs config.dataset.train_crop='resized', but "
            "it is 'padded', whose crops have the size of the stored images; choose 'resized', or "
            'leave initial_size at -1.'
        )
    if first > last:
        raise ConfigError(
            f'config.dataset.initial_size={first} exceeds config.dataset.image_size={last}, but '
            'training images grow; choose a smaller initial_size.'
        )
    if values['dataset.cutout'] >= first:
        raise ConfigError(
            f'config.dataset.cutout={values["dataset.cutout"]} erases whole crops of the first '
            f'epochs; choose less than config.dataset.initial_size={first}.'
        )


def check_overrides(config: ConfigDict, overridden: Iterable[str]) -> None:
    """Checks `config`, and that each field overridden by the user has an effect.

    Fields set by the recipe may be without effect: overriding its schedule must not fail because
    of its decay epochs. Raises ConfigError.
    """
    check(config)
    values, overridden = flatten(config), set(overridden)
    for name in sorted(overridden):
        FIELDS[name].verify_read(values)
    mixup, cutmix = values['mix.mixup_alpha'], values['mix.cutmix_alpha']
    if 'mix.switch_prob' in overridden and not (mixup and cutmix):
        raise ConfigError(
            f'config.mix.switch_prob={values["mix.switch_prob"]} has no effect with '
            f'config.mix.mixup_alpha={mixup} and config.mix.cutmix_alpha={cutmix}; remove it, or '
            'set both to values above 0.'
        )
    decays, epochs = values['optimizer.decay_epochs'], values['num_epochs']
    if (
        'optimizer.decay_epochs' in overridden
        and values['num_train_steps'] == -1
        and max(decays, default=0) >= epochs
    ):
        raise ConfigError(
            f'config.optimizer.decay_epochs={decays} extends past the end of the run, '
            f'config.num_epochs={epochs}; they are epochs, not steps: remove the later ones.'
        )


def changed_fields(config: ConfigDict, saved: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Compares `config` with `saved`, the fields of a run's config.json.

    Returns:
      Changes that make it a different run, and harmless ones, each as 'seed was 0 and is 1'.
    """
    now = flatten(ConfigDict(json.loads(config.to_json())))
    # A field added since the run started had its default.
    before = {**flatten(ConfigDict(json.loads(base().to_json()))), **flatten(ConfigDict(saved))}
    changed = {
        name: f'{name} was {before.get(name)!r} and is {now.get(name)!r}'
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    }
    resumable = {name for name, field in FIELDS.items() if field.resumable}
    depend_on_length = now['optimizer.schedule'] in ('cosine', 'polynomial') or now['ema.horizon']
    if depend_on_length:
        resumable -= {'num_epochs', 'num_train_steps'}
    harmless = [text for name, text in changed.items() if name in resumable]
    return [text for text in changed.values() if text not in harmless], harmless


def check_same_model(config: ConfigDict, saved: Mapping[str, Any]) -> None:
    """Checks that `config` can evaluate the checkpoints of a run; raises ConfigError.

    Args:
      config: to evaluate with.
      saved: the fields of the run's config.json.
    """
    changed, _ = changed_fields(config, saved)
    changed = [text for text in changed if text.startswith(_EVALUATED)]
    if changed:
        raise ConfigError(
            f'The run in this workdir has another config: {"; ".join(changed)}. '
            'Restore the old values, or omit --config to evaluate with the config of the run.'
        )


def check_batch_size(config: ConfigDict, num_devices: int) -> None:
    """Checks that training images split evenly over devices and micro-batches.

    Raises:
      ConfigError: naming the nearest sizes that do.
    """
    size, parts = config.batch_size, config.micro_batches
    unit = num_devices * parts
    if size % unit:
        below = size // unit * unit
        fits = [str(n) for n in (below, below + unit) if n > 0]
        verb = 'sizes that fit are' if len(fits) > 1 else 'size that fits is'
        each = f', each in {parts} micro-batches' if parts > 1 else ''
        raise ConfigError(
            f'config.batch_size={size} cannot be split over {num_devices} devices{each}. It '
            f'counts images on all devices together; the nearest {verb} {" and ".join(fits)}.'
        )


def check_batch_norm_group_size(config: ConfigDict, num_devices: int) -> None:
    """Checks that BatchNorm groups split the devices evenly; raises ConfigError."""
    shared = config.model.batch_norm_group_size
    if shared > 0 and num_devices % shared:
        divisors = [str(d) for d in range(1, num_devices + 1) if num_devices % d == 0]
        raise ConfigError(
            f'config.model.batch_norm_group_size={shared} does not divide {num_devices} devices; '
            f'choose one of {", ".join(divisors)}, or -1 for all.'
        )


def unknown_field(name: str) -> str:
    """The error message for a field that does not exist, naming the nearest ones."""
    inside = [known for known in FIELDS if known.startswith(f'{name}.')]
    if inside:
        one = f'{name}.name' if f'{name}.name' in inside else inside[0]
        return f'config.{name} is a group of fields; set one of them, as config.{one}.'
    fields = {known: known for known in FIELDS}
    fields |= {known.rpartition('.')[2]: known for known in reversed(FIELDS)}  # without its group
    meant = fields[nearest(name, fields).partition(',')[0]]
    return (
        f'config.{name} does not exist; nearest: {nearest(meant, FIELDS)}. ssanet train --help '
        'lists all fields.'
    )
