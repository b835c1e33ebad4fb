"""Every knob of a run with its type, default and meaning, and the numbers that follow from them.

A recipe in configs/ starts from `base()` and changes what differs. Any field can be
overridden on the command line: `--config.optimizer.learning_rate=0.05`.
"""

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ssanet_jax import layers
from ssanet_jax.attention import ATTENTION
from ssanet_jax.errors import ConfigError


def base() -> ConfigDict:
    """The defaults, which are those of the SSANet authors' ImageNet recipe."""
    config = ConfigDict()
    config.seed = 0  # of the initial weights, the order of the examples and their crops
    config.batch_size = 128  # training images a step, on all devices of all hosts together
    config.eval_batch_size = -1  # images an evaluation step; -1: batch_size
    config.num_epochs = 100.0  # passes over the training split
    config.num_train_steps = -1  # overrides num_epochs; -1: from num_epochs
    config.eval_every_steps = -1  # -1: once an epoch; always after the last step
    config.checkpoint_every_steps = -1  # besides those after each evaluation; -1: none besides
    config.max_to_keep = 3  # the newest ones; the best is kept besides
    config.log_every_steps = 50  # training metrics are sums over this many steps
    config.log_gates = False  # write what attention's gates do beside them, see docs/gates.md
    config.profile_start_step = -1  # first step of a profiler trace, counted from 1; -1: none
    config.profile_num_steps = 3  # length of that trace
    config.dtype = 'float32'  # of the computation: float32 or bfloat16; parameters stay float32
    config.max_loss = 1000.0  # the run stops at a step whose mean loss is above it, or not finite
    config.max_bad_steps = 0  # steps in a row that may be skipped for not being finite
    config.label_smoothing = 0.0  # probability moved from the label to all classes evenly
    config.dataset = _dataset()
    config.model = _model()
    config.init = _init()
    config.optimizer = _optimizer()
    return config


def cifar(name: str) -> ConfigDict:
    """The SSANet authors' recipe for 'cifar10' and 'cifar100', which their networks share."""
    config = base()
    config.batch_size = 100
    config.num_epochs = 250.0
    config.dataset.name = name
    config.dataset.eval_split = 'test'
    config.dataset.in_memory = True
    config.dataset.train_crop = 'padded'
    config.dataset.eval_crop = 'whole'
    config.dataset.image_size = 32
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.2023, 0.1994, 0.2010)
    config.model.stem = 'cifar'
    config.optimizer.reference_batch_size = 100
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_epochs = (50.0, 100.0, 150.0, 200.0)
    return config


def _dataset() -> ConfigDict:
    dataset = ConfigDict()
    dataset.name = 'imagenet2012:5.*.*'  # a TFDS name, digits, fashion_mnist_idx, or folder
    # Of prepared sets, unset: ~/tensorflow_datasets. A folder's images: SPLIT/CLASS/NAME.jpg in it.
    dataset.data_dir = placeholder(str)
    dataset.manual_dir = placeholder(str)  # files downloaded by hand; unset: TFDS's
    dataset.train_split = 'train'  # TFDS split, may be a slice: 'train[:90%]'
    dataset.eval_split = 'validation'
    dataset.in_memory = False  # decode the splits once and keep them, on every host
    dataset.train_crop = 'resized'  # random resized crop; or 'padded': random crop after padding
    dataset.eval_crop = 'center'  # centre of the resized image; or 'whole': all of it, resized
    dataset.image_size = 224  # height and width that the model sees
    dataset.mean = (0.485, 0.456, 0.406)  # per channel, of images scaled to 0..1
    dataset.std = (0.229, 0.224, 0.225)
    dataset.flip = True  # mirror half of the training images
    dataset.crop_padding = 4  # padded: zero pixels around a training image before its crop
    dataset.crop_area = (0.08, 1.0)  # resized: share of a training image that a crop covers
    dataset.crop_aspect = (0.75, 4 / 3)  # resized: width over height of a training crop
    dataset.eval_crop_pct = 0.875  # center: image_size over the resized short side
    # resized, center: interpolation, 'bilinear' or 'bicubic'; center crops are always antialiased,
    # resized ones if asked for. See docs/data.md for what each costs and how far they differ.
    dataset.interpolation = 'bilinear'
    dataset.antialias = False
    dataset.shuffle_buffer = (
        16384  # tfrecord, not in memory: encoded examples held for shuffling, per host
    )
    dataset.num_threads = -1  # threads that decode; -1: one more than cores
    # An image of more pixels, or a file of more bytes, counts as one that cannot be decoded.
    dataset.max_image_pixels = 2**27
    dataset.max_image_bytes = 2**26
    dataset.max_bad_fraction = 0.001  # of the split; more that cannot be decoded stop the run
    dataset.bad_eval_images = 'error'  # or 'incorrect': count them as incorrectly classified
    return dataset


def _model() -> ConfigDict:
    model = ConfigDict()
    model.name = 'ssa_resnet50'  # see ssanet_jax.model_names()
    # Unset, these are as the named network has them.
    model.stem = placeholder(str)  # 'imagenet' or 'cifar'
    model.dropout = placeholder(float)  # share of the values dropped before the last layer
    model.batch_norm_epsilon = placeholder(float)  # 1e-5, and 1e-3 in GoogLeNet
    model.variant = placeholder(str)  # bottlenecks: 'v1' or 'v1.5'; unset: 'v1.5'
    # Bottlenecks' last convolution, BatchNorm, attention, sum and ReLU: 'folded' and 'plain' are
    # the same function at different cost; 'auto' chooses by shape, see docs/performance.md.
    model.tail = 'auto'
    model.zero_init_residual = False  # last BatchNorm of each residual branch starts at 0
    model.batch_norm_group_size = 1  # that share BatchNorm statistics; 1: local, -1: all
    model.batch_norm_momentum = 0.9  # share of the old running statistics kept each step
    # Which of a network's blocks have attention: stages count from 1, blocks of a stage from 0, or
    # from the end as -1; unset: all.
    model.attention_stages = placeholder(tuple)
    model.attention_blocks = placeholder(tuple)
    model.attention_position = 'pre_residual'  # or 'post_residual', behind a block's sum and ReLU
    # model.ssa.groups, model.se.ratio, ...: the options of each attention, see its class.
    for kind, block in ATTENTION.items():
        model[kind] = _attention_options(block)
    return model


def _attention_options(block: Callable[..., Any]) -> ConfigDict:
    """What can be said of an attention block in a config, with the defaults of its class."""
    given = getattr(block, 'keywords', {})
    fields = dataclasses.fields(layers.unwrap_partial(block))
    return ConfigDict(
        {
            field.name: given.get(field.name, field.default)
            for field in fields
            if field.name not in ('parent', 'name', 'norm')
        }
    )


def _init() -> ConfigDict:
    init = ConfigDict()
    # What a run starts from: weights in a .safetensors or .pth file, by the names of torchvision,
    # timm, the released SSANet or this package; unset: random ones.
    init.weights = placeholder(str)
    init.attention = 'load'  # or 'insert': they are of the network without SSA, see docs/models.md
    init.head = 'load'  # or 'new': leave the last layer random, for other classes
    return init


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
    # Patterns of the parameters to train, as ('*/ssa/*',); empty: all. The others stay as they are,
    # BatchNorms' running statistics do not.
    optimizer.train_only = ()
    return optimizer


class TrainPlan(NamedTuple):
    """The numbers of a run that follow from its config and the size of its training split.

    The stream of training examples has no seam between epochs, so an epoch, and with it
    what happens once an epoch, need not be a whole number of steps.
    """

    steps_per_epoch: Fraction
    num_train_steps: int
    eval_every_steps: int | Fraction
    checkpoint_every_steps: int | Fraction
    peak_learning_rate: float

    def evaluates_at(self, step: int) -> bool:
        due = is_due(step, self.eval_every_steps) or step == self.num_train_steps
        return step > 0 and due

    def saves_at(self, step: int) -> bool:
        """A checkpoint is written before each evaluation, and besides."""
        return self.evaluates_at(step) or is_due(step, self.checkpoint_every_steps)


def make_plan(config: ConfigDict, num_train_examples: int) -> TrainPlan:
    """Computes what depends on other fields; call it after the overrides.

    Raises:
      ConfigError: the warm-up is not shorter than the run, or the profile comes after it.
    """
    epoch = Fraction(num_train_examples, config.batch_size)
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
    if config.profile_start_step > steps:
        raise ConfigError(
            f'config.profile_start_step={config.profile_start_step} comes after the last step, '
            f'{steps}; choose an earlier one.'
        )
    scale = config.batch_size / config.optimizer.reference_batch_size
    return TrainPlan(
        steps_per_epoch=epoch,
        num_train_steps=steps,
        eval_every_steps=every,
        checkpoint_every_steps=save,
        peak_learning_rate=config.optimizer.learning_rate * scale,
    )


def is_due(step: int, every: int | Fraction) -> bool:
    """True at the first step at or after each multiple of `every`.

    >>> [step for step in range(1, 10) if is_due(step, Fraction(5, 2))]
    [3, 5, 8]
    """
    return step // every > (step - 1) // every


def flatten(config: ConfigDict) -> dict[str, Any]:
    """{'optimizer.momentum': 0.9, ...}: every leaf by its dotted name."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            flat.update({f'{key}.{inner}': leaf for inner, leaf in flatten(value).items()})
        else:
            flat[key] = value
    return flat
