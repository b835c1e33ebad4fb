"""Config fields of augmentation on the host, and the form of RandAugment's names."""

import re

from ssanet_jax.config.field import Check, Field, between

RAND_AUGMENT = re.compile(r'rand-m(?P<magnitude>\d|10)-mstd(?P<std>\d(\.\d+)?)-inc1')

_AUGMENT = Check(
    "'none', 'trivial_wide', or as 'rand-m7-mstd0.5-inc1' with a magnitude m of 0 to 10 and its "
    'standard deviation mstd below 10',
    lambda v: v in ('none', 'trivial_wide') or RAND_AUGMENT.fullmatch(v) is not None,
)
_JITTER = Check(
    'four numbers from 0 to 1, the last at most 0.5',
    lambda v: len(v) == 4 and min(v) >= 0 and max(v) <= 1 and v[3] <= 0.5,
)

# fmt: off
AUGMENTATION_FIELDS = (
    Field('dataset.augment', 'none', 'Augmentation of training crops, see docs/augmentation.md.',
          _AUGMENT),
    Field('dataset.color_jitter', (0.0, 0.0, 0.0, 0.0),
          'Strength of random changes of brightness, contrast, saturation and hue.', _JITTER),
    Field('dataset.random_erasing', 0.0, 'Probability of erasing a rectangle of a training crop.',
          between(0, 1)),
    Field('dataset.cutout', 0, 'Side of a square to erase from every training crop; 0: none.',
          Check('even, at least 0', lambda v: v >= 0 and v % 2 == 0)),
    Field('dataset.repeats', 1,
          'Crops of each example in an epoch, which then covers 1 / repeats of the split.',
          between(1, 8)),
)
# fmt: on
