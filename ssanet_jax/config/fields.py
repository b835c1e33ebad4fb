"""Every field of a config, declared once; a new one is one more `Field` here.

The defaults, the checks, what may change when a run is resumed, `main.py --help` and
docs/config.md are all made from this table.
"""

from ssanet_jax.config.attention_fields import ATTENTION_FIELDS
from ssanet_jax.config.augmentation_fields import AUGMENTATION_FIELDS
from ssanet_jax.config.field import (
    FRACTION,
    IS_SET,
    Check,
    Field,
    above,
    at_least,
    between,
    or_auto,
)
from ssanet_jax.config.recipe_fields import RECIPE

# Upper bounds are where memory, or an int32, would run out.
_STEPS = or_auto(at_least(1))
_IMAGES = between(1, 2**20)


def _channels(low: float) -> Check:
    scaled = 'of images scaled to 0..1; divide those of 0..255 by 255'
    return Check(
        f'three numbers from {low} to 1, {scaled}',
        lambda v: len(v) == 3 and min(v) >= low and max(v) <= 1,
    )


# fmt: off
_RUN = (
    Field('seed', 0, 'Seed of weights, example order and augmentation.', between(0, 2**31 - 1)),
    Field('batch_size', 128, 'Training images per step, over all devices of all hosts.', _IMAGES),
    Field('eval_batch_size', -1, 'Images per evaluation step; -1: batch_size.',
          or_auto(_IMAGES), resumable=True),
    Field('num_epochs', 100.0, 'Passes over the training split.',
          above(0, 100_000), only_with={'num_train_steps': -1}, resumable=True),
    Field('num_train_steps', -1, 'Overrides num_epochs; -1: from num_epochs.',
          _STEPS, resumable=True),
    Field('eval_every_steps', -1,
          'Steps between evaluations; the last step is always evaluated. -1: an epoch.', _STEPS,
          resumable=True),
    Field('checkpoint_every_steps', -1,
          'Steps between checkpoints, in addition to one per evaluation; -1: no others.', _STEPS,
          resumable=True),
    Field('max_to_keep', 3, 'Newest checkpoints to keep, in addition to the best.',
          at_least(1), resumable=True),
    Field('log_every_steps', 50, 'Steps that training metrics cover.', at_least(1), resumable=True),
    Field('log_gates', False, 'Log gate statistics, see docs/gates.md.', resumable=True),
    Field('profile_start_step', -1, 'First step of a profiler trace, from 1; -1: no trace.',
          _STEPS, resumable=True),
    Field('profile_num_steps', 3, 'Steps that the trace covers.',
          at_least(1), only_with={'profile_start_step': above(0)}, resumable=True),
    Field('dtype', 'float32', 'Dtype of computation; parameters are float32.',
          choices=('float32', 'bfloat16')),
    Field('exchange_dtype', 'float32',
          "Dtype in which gradients of kernels cross devices; all else crosses in float32.",
          choices=('float32', 'bfloat16')),
    Field('max_loss', 1000.0,
          'The run stops at a step with a larger mean loss, or one that is not finite.', above(0),
          resumable=True),
    Field('max_bad_steps', 0, 'Consecutive non-finite steps to skip before stopping.', at_least(0)),
    Field('loss', 'cross_entropy', 'Training loss, a name in ssanet_jax.training.losses.LOSSES.'),
    Field('label_smoothing', 0.0, 'Probability spread evenly over all classes.', FRACTION),
    Field('target_threshold', None,
          'Probability above which a class becomes a full target, with mixed labels; unset: none.',
          FRACTION, kind=float, only_with={'loss': 'binary_cross_entropy'}),
    Field('micro_batches', 1,
          "Parts of each device's batch whose gradients are computed one after the other.",
          between(1, 2**16)),
)

_FOLDER = {'dataset.name': 'folder'}
_DATASET = (
    Field('dataset.name', 'imagenet2012:5.*.*',
          "TFDS name, 'digits', 'fashion_mnist_idx', or 'folder' for your own images."),
    Field('dataset.data_dir', None,
          'Prepared datasets, or the folder of images; unset: ~/tensorflow_datasets.', kind=str,
          resumable=True, per_host=True),
    Field('dataset.manual_dir', None, "Manually downloaded files; unset: TFDS's default.",
          kind=str, resumable=True, per_host=True),
    Field('dataset.train_split', 'train', "TFDS split, possibly a slice: 'train[:90%]'."),
    Field('dataset.eval_split', 'validation', 'TFDS split to evaluate on.'),
    Field('dataset.validation_share', 0.2,
          'Share of each class to evaluate on where a folder has no validation images.',
          Check('above 0, below 1', lambda v: 0 < v < 1), only_with=_FOLDER),
    Field('dataset.split_seed', 0, 'Seed of that choice; config.seed does not change it.',
          at_least(0), only_with=_FOLDER),
    Field('dataset.check_images', True,
          'Decode every image of a folder before the first step; report all bad ones at once.',
          only_with=_FOLDER, resumable=True),
    Field('dataset.in_memory', False, 'Decode splits once and keep them in memory, on every host.'),
    Field('dataset.image_size', 224, 'Height and width of network inputs.', between(1, 4096)),
    Field('dataset.mean', (0.485, 0.456, 0.406), 'Mean per channel, of images scaled to 0..1.',
          _channels(0)),
    Field('dataset.std', (0.229, 0.224, 0.225),
          'Standard deviation per channel, of images scaled to 0..1.',
          _channels(0.001)),
    Field('dataset.train_crop', 'resized',
          "'resized': random resized crop. 'padded': random crop of the zero-padded image.",
          choices=('resized', 'padded')),
    Field('dataset.crop_area', (0.08, 1.0), 'Range of the fraction of an image that a crop covers.',
          Check('two fractions, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1] <= 1),
          only_with={'dataset.train_crop': 'resized'}),
    Field('dataset.crop_aspect', (0.75, 4 / 3), "Range of a crop's width over its height.",
          Check('two ratios, rising', lambda v: len(v) == 2 and 0 < v[0] <= v[1]),
          only_with={'dataset.train_crop': 'resized'}),
    Field('dataset.crop_padding', 4, 'Zero pixels on each side of an image before its crop.',
          at_least(0), only_with={'dataset.train_crop': 'padded'}),
    Field('dataset.flip', True, 'Mirror half of the training images.'),
    Field('dataset.eval_crop', 'center',
          "'center': resize the short side and crop the center. 'whole': resize the whole image.",
          choices=('center', 'whole')),
    Field('dataset.eval_crop_pct', 0.875, 'image_size over the resized short side.',
          between(0.1, 1), only_with={'dataset.eval_crop': 'center'}),
    Field('dataset.interpolation', 'bilinear', 'How crops are resized, see docs/data.md.',
          choices=('bilinear', 'bicubic'),
          only_with={'dataset.train_crop': 'resized', 'dataset.eval_crop': 'center'}),
    Field('dataset.antialias', False, 'Antialias training crops; evaluation always does.',
          only_with={'dataset.train_crop': 'resized'}),
    Field('dataset.shuffle_buffer', 16384,
          'Encoded examples per host to shuffle tfrecord files with.', between(1, 2**24),
          only_with={'dataset.in_memory': False}),
    Field('dataset.num_threads', -1,
          'Decoding threads, each with 64 images at a time; -1: one more than cores.',
          or_auto(between(1, 1024)), resumable=True, per_host=True),
    Field('dataset.max_image_pixels', 2**27, 'Larger images count as undecodable.', at_least(1)),
    Field('dataset.max_image_bytes', 2**26, 'Larger files count as undecodable.', at_least(1)),
    Field('dataset.max_bad_fraction', 0.001,
          'Undecodable fraction of the training split to tolerate before stopping.', between(0, 1),
          resumable=True),
    Field('dataset.bad_eval_images', 'error',
          "Undecodable images in evaluation: 'error' stops, 'incorrect' counts them as such.",
          choices=('error', 'incorrect'), resumable=True),
    *AUGMENTATION_FIELDS,
)

_MODEL = (
    Field('model.name', 'ssa_resnet50', 'Network, see ssanet_jax.model_names().'),
    Field('model.stem', None, "First layers; unset: the network's.",
          kind=str, choices=('imagenet', 'cifar', 'deep'), network_option=True),
    Field('model.dropout', None, "Dropout rate before the last layer; unset: the network's.",
          FRACTION, kind=float, network_option=True),
    Field('model.stochastic_depth', 0.0,
          'Rate at which the last block drops its residual branch; see docs/recipes.md.', FRACTION,
          network_option=True),
    Field('model.remat', None,
          'Stages, from 1, whose activations are computed again for the gradient; unset: none.',
          kind=tuple[int, ...], resumable=True, network_option=True),
    Field('model.variant', None,
          "Stride of bottlenecks in the first (v1) or second (v1.5) convolution; unset: 'v1.5'.",
          kind=str, choices=('v1', 'v1.5'), network_option=True),
    Field('model.tail', 'auto',
          "Implementation of bottlenecks' ends, see docs/performance.md; 'auto' depends on shapes.",
          choices=('auto', 'folded', 'plain'), resumable=True, network_option=True),
    Field('model.zero_init_residual', False,
          'Initialize the last BatchNorm scale of each residual branch to 0.', network_option=True),
    Field('model.batch_norm_group_size', 1, 'Devices that share BatchNorm statistics; -1: all.',
          or_auto(at_least(1))),
    Field('model.batch_norm_momentum', 0.9, 'Decay of running statistics per step.', FRACTION),
    Field('model.batch_norm_epsilon', None,
          'Added to variances; unset: 1e-3 in GoogLeNet, 1e-5 elsewhere.', above(0), kind=float),
    Field('model.attention_stages', None, 'Stages with attention, from 1; unset: all.',
          kind=tuple[int, ...], network_option=True),
    Field('model.attention_blocks', None,
          'Blocks of a stage with attention, from 0, or from the end as -1; unset: all.',
          kind=tuple[int, ...], network_option=True),
    Field('model.attention_position', 'pre_residual',
          "Before a block's residual sum, or after its sum and ReLU.",
          choices=('pre_residual', 'post_residual'), network_option=True),
)

_INIT = (
    Field('init.weights', None,
          'Initial weights, .safetensors or .pth, see docs/models.md; unset: random.', kind=str,
          per_host=True),
    Field('init.part', None,
          'One of several networks in init.weights, as model_ema; unset: not averaged ones.',
          kind=str, only_with={'init.weights': IS_SET}),
    Field('init.attention', 'load',
          "'load': from init.weights. 'insert': they have none; insert SSA as an identity.",
          choices=('load', 'insert'), only_with={'init.weights': IS_SET}),
    Field('init.head', 'load', "'load': from init.weights. 'new': random, for other classes.",
          choices=('load', 'new'), only_with={'init.weights': IS_SET}),
)
# fmt: on

FIELDS = {f.name: f for f in (*_RUN, *_DATASET, *_MODEL, *ATTENTION_FIELDS, *_INIT, *RECIPE)}
