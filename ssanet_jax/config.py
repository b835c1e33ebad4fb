"""Every knob of a run with its type, default and meaning; the checks; the derived numbers.

A recipe in configs/ starts from `base()` and changes what differs. Any field can be
overridden on the command line: `--config.optimizer.learning_rate=0.05`.
"""

import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


class ConfigError(ValueError):
    """A config that cannot be run; the message is one line with the remedy."""


def base() -> ConfigDict:
    """The defaults, which are those of the SSANet authors' ImageNet recipe."""
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the order of the examples and their crops
    config.batch_size = 128  # training images a step, on all devices of all hosts together
    config.eval_batch_size = -1  # images an evaluation step; -1: batch_size
    config.num_epochs = 100.0  # passes over the training split
    config.num_train_steps = -1  # overrides num_epochs; -1: from num_epochs
    config.eval_every_steps = -1  # -1: once an epoch; always after the last step
    config.checkpoint_every_steps = -1  # -1: after each evaluation; always after the last step
    config.keep_checkpoints = 3  # the newest ones; the best is kept besides
    config.log_every_steps = 50  # training metrics are sums over this many steps
    config.profile_start_step = -1  # first step of a profiler trace, counted from 1; -1: none
    config.profile_num_steps = 3  # length of that trace
    config.dtype = 'float32'  # of the computation: float32 or bfloat16; parameters stay float32
    config.label_smoothing = 0.0  # probability moved from the label to all classes evenly
    config.dataset = _dataset()
    config.model = _model()
    config.optimizer = _optimizer()
    return config


def _dataset() -> ConfigDict:
    dataset = ConfigDict()
    dataset.name = 'imagenet2012:5.*.*'  # a TFDS name, or digits, or fashion_mnist_idx
    dataset.data_dir = placeholder(str)  # of prepared sets; unset: TFDS's, ~/tensorflow_datasets
    dataset.manual_dir = placeholder(str)  # files downloaded by hand; unset: TFDS's
    dataset.train_split = 'train'  # TFDS split, may be a slice: 'train[:90%]'
    dataset.eval_split = 'validation'
    # 'stream': decode, random resized crop, flip; evaluation resizes and crops the centre.
    # 'memory': the whole split decoded once; random crop of the padded image, flip.
    dataset.reader = 'stream'
    dataset.image_size = 224  # height and width that the model sees
    dataset.mean = (0.485, 0.456, 0.406)  # per channel, of images scaled to 0..1
    dataset.std = (0.229, 0.224, 0.225)
    dataset.flip = True  # mirror half of the training images
    dataset.crop_padding = 4  # memory: zero pixels around a training image before its crop
    dataset.crop_area = (0.08, 1.0)  # stream: share of a training image that a crop covers
    dataset.crop_aspect = (0.75, 4 / 3)  # stream: width over height of a training crop
    dataset.eval_crop_fraction = 0.875  # stream: image_size over the resized short side
    dataset.shuffle_buffer = 16384  # stream: encoded examples held for shuffling, per host
    return dataset


def _model() -> ConfigDict:
    model = ConfigDict()
    model.name = 'ssa_resnet50'  # see ssanet_jax.model_names()
    model.stem = placeholder(str)  # 'imagenet' or 'cifar'; unset: as the named network has it
    model.variant = placeholder(str)  # bottlenecks: 'v1' or 'v1.5'; unset: 'v1.5'
    model.zero_init_residual = False  # last BatchNorm of each residual branch starts at 0
    model.batch_norm_devices = 1  # that share BatchNorm statistics; 1: local, -1: all
    model.batch_norm_momentum = 0.9  # share of the old running statistics kept each step
    model.batch_norm_epsilon = 1e-5
    model.ssa = ConfigDict()  # for ssa_* models, see ssanet_jax.SSABlock
    model.ssa.squeeze = 'mean'  # 'mean' or 'max'
    model.ssa.combine = 'sum'  # 'sum' (the paper) or 'mean' (the released code)
    model.ssa.groups = 1
    model.se = ConfigDict()  # for se_* models, see ssanet_jax.SEBlock
    model.se.ratio = 16
    return model


def _optimizer() -> ConfigDict:
    optimizer = ConfigDict()
    optimizer.name = 'sgd'  # 'sgd' or 'adamw'
    optimizer.learning_rate = 0.1  # for reference_batch_size; scales linearly with batch_size
    optimizer.reference_batch_size = 128
    optimizer.momentum = 0.9  # sgd
    optimizer.nesterov = False  # sgd
    optimizer.b1 = 0.9  # adamw
    optimizer.b2 = 0.999  # adamw
    optimizer.weight_decay = 1e-4  # sgd: added to the gradient as L2; adamw: decoupled
    optimizer.decay_parameters = 'all'  # 'all', or 'kernels': neither biases nor BatchNorm
    optimizer.schedule = 'step'  # 'step', 'cosine' or 'constant'
    optimizer.warmup_epochs = 0.0  # linear from 0; the schedule goes on from there
    optimizer.decay_epochs = (30.0, 60.0, 90.0)  # step: when the rate is multiplied
    optimizer.decay_factor = 0.1  # step: by this
    return optimizer


class Plan(NamedTuple):
    """The numbers of a run that follow from its config and the size of its training split.

    The stream of training examples has no seam between epochs, so an epoch, and with it
    what happens once an epoch, need not be a whole number of steps.
    """

    steps_per_epoch: float
    num_train_steps: int
    eval_every_steps: float
    checkpoint_every_steps: float
    peak_learning_rate: float


def make_plan(config: ConfigDict, num_train_examples: int) -> Plan:
    """Computes what depends on other fields; call it after the overrides.

    Raises:
      ConfigError: the warm-up is not shorter than the run.
    """
    epoch = num_train_examples / config.batch_size
    steps = config.num_train_steps
    if steps < 0:
        steps = max(1, round(config.num_epochs * epoch))
    warmup = round(config.optimizer.warmup_epochs * epoch)
    if warmup >= steps:
        raise ConfigError(
            f'config.optimizer.warmup_epochs={config.optimizer.warmup_epochs} are {warmup} steps, '
            f'but the run has {steps}; shorten the warm-up or lengthen the run.'
        )
    every = config.eval_every_steps if config.eval_every_steps > 0 else epoch
    save = config.checkpoint_every_steps if config.checkpoint_every_steps > 0 else every
    scale = config.batch_size / config.optimizer.reference_batch_size
    return Plan(
        steps_per_epoch=epoch,
        num_train_steps=steps,
        eval_every_steps=every,
        checkpoint_every_steps=save,
        peak_learning_rate=config.optimizer.learning_rate * scale,
    )


def is_due(step: int, every: float) -> bool:
    """True at the first step at or after each multiple of `every`.

    >>> [step for step in range(1, 10) if is_due(step, 2.5)]
    [3, 5, 8]
    """
    return step // every > (step - 1) // every


_CHOICES = {
    'dtype': ('float32', 'bfloat16'),
    'dataset.reader': ('memory', 'stream'),
    'model.stem': (None, 'imagenet', 'cifar'),
    'model.variant': (None, 'v1', 'v1.5'),
    'model.ssa.squeeze': ('mean', 'max'),
    'model.ssa.combine': ('sum', 'mean'),
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
    'dataset.mean': ('three numbers', lambda v: len(v) == 3),
    'dataset.std': ('three numbers above 0', lambda v: len(v) == 3 and min(v) > 0),
    'model.batch_norm_devices': _COUNT_OR_AUTO,
    'model.batch_norm_momentum': _SHARE,
    'model.batch_norm_epsilon': _POSITIVE,
    'optimizer.learning_rate': _POSITIVE,
    'optimizer.reference_batch_size': _POSITIVE,
    'optimizer.momentum': _SHARE,
    'optimizer.b1': _SHARE,
    'optimizer.b2': _SHARE,
    'optimizer.weight_decay': _NOT_NEGATIVE,
    'optimizer.warmup_epochs': _NOT_NEGATIVE,
    'optimizer.decay_epochs': ('rising', lambda v: list(v) == sorted(set(v)) and min(v, default=1) > 0),
    'optimizer.decay_factor': _POSITIVE,
}

# Fields that only one setting of another field reads.
_READ_BY = {
    'dataset.crop_padding': ('dataset.reader', 'memory'),
    'dataset.crop_area': ('dataset.reader', 'stream'),
    'dataset.crop_aspect': ('dataset.reader', 'stream'),
    'dataset.eval_crop_fraction': ('dataset.reader', 'stream'),
    'dataset.shuffle_buffer': ('dataset.reader', 'stream'),
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
            raise ConfigError(f'config.{field}={values[field]} is out of range; it must be {meaning}.')
    for field, (reader, wanted) in _READ_BY.items():
        if values[field] != defaults[field] and values[reader] != wanted:
            raise ConfigError(
                f'config.{field}={values[field]} has no effect with '
                f'config.{reader}={values[reader]!r}; remove it, or set {wanted!r} there.'
            )
    _check_attention(values, defaults)
    warmup, decays = values['optimizer.warmup_epochs'], values['optimizer.decay_epochs']
    if values['optimizer.schedule'] == 'step' and decays and decays[0] <= warmup:
        raise ConfigError(
            f'config.optimizer.decay_epochs={decays} begins inside the warm-up of {warmup} '
            'epochs; decay later, or shorten optimizer.warmup_epochs.'
        )


def _check_attention(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    name = values['model.name']
    for field in values:
        kind = field.split('.')[1] if field.count('.') == 2 else ''
        if kind and not name.startswith(f'{kind}_') and values[field] != defaults[field]:
            raise ConfigError(
                f'config.{field}={values[field]!r} has no effect on config.model.name={name!r}; '
                f'remove it, or choose a {kind}_ model.'
            )


def check_devices(config: ConfigDict, num_devices: int, num_hosts: int) -> None:
    """Checks what must divide evenly over devices and hosts; raises ConfigError."""
    size = config.batch_size
    if size % num_devices:
        below = size // num_devices * num_devices
        fits = [str(n) for n in (below, below + num_devices) if n > 0]
        verb = 'sizes that fit are' if len(fits) > 1 else 'size that fits is'
        raise ConfigError(
            f'config.batch_size={size} cannot be split over {num_devices} devices. It counts '
            f'images on all devices together; the nearest {verb} {" and ".join(fits)}.'
        )
    shared = config.model.batch_norm_devices
    if shared > 0 and num_devices % shared:
        divisors = [str(d) for d in range(1, num_devices + 1) if num_devices % d == 0]
        raise ConfigError(
            f'config.model.batch_norm_devices={shared} does not divide {num_devices} devices '
            f'on {num_hosts} host(s); choose one of {", ".join(divisors)}, or -1 for all.'
        )


def unknown_field(field: str) -> str:
    """The error message for a field that does not exist, naming the nearest ones."""
    known = list(flatten(base()))
    leaf = field.rpartition('.')[2]
    same_leaf = [k for k in known if difflib.SequenceMatcher(a=k.rpartition('.')[2], b=leaf).ratio() > 0.7]
    nearest = difflib.get_close_matches(field, known, n=3) or same_leaf
    hint = f'nearest: {", ".join(nearest)}' if nearest else f'known: {", ".join(known)}'
    return f'config.{field} does not exist; {hint}.'


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{'optimizer.momentum': 0.9, ...}: every leaf by its dotted name."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update({f'{key}.{inner}': leaf for inner, leaf in flatten(value).items()})
        else:
            flat[key] = value
    return flat
