"""Test sets beside that of the training dataset, for networks trained on ImageNet or CIFAR-10."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# Mean top-1 error of AlexNet over the five severities, percent, with which mCE is normalized:
# Hendrycks and Dietterich 2019, https://arxiv.org/abs/1903.12261, table 1 has them rounded.
ALEXNET = {
    'gaussian_noise': 88.6428,
    'shot_noise': 89.4468,
    'impulse_noise': 92.2640,
    'defocus_blur': 81.9880,
    'glass_blur': 82.6268,
    'motion_blur': 78.5948,
    'zoom_blur': 79.8360,
    'snow': 86.6816,
    'frost': 82.6572,
    'fog': 81.9324,
    'brightness': 56.4592,
    'contrast': 85.3204,
    'elastic_transform': 64.6056,
    'pixelate': 71.7840,
    'jpeg_compression': 60.6500,
}
SEVERITIES = (1, 2, 3, 4, 5)
_CIFAR_NAMES = {'glass_blur': 'frosted_glass_blur', 'elastic_transform': 'elastic'}


class Benchmark(NamedTuple):
    """A test set, of one or more TFDS datasets.

    Attributes:
      parts: TFDS names by (corruption, severity); of a single dataset, by ('', 0).
      split: of each.
      label: the feature that holds the correct class, or classes.
      classes: names of the classes, where TFDS has numbers only; empty: TFDS's.
      subset: file with WordNet ids of the classes to choose among; '': all.
      cropped: whether images are stored as crops, and therefore only resized.
      reference: errors by corruption that the mean errors are divided by; empty: none.
    """

    parts: Mapping[tuple[str, int], str]
    split: str = 'test'
    label: str = 'label'
    classes: tuple[str, ...] = ()
    subset: str = ''
    cropped: bool = False
    reference: Mapping[str, float] = {}


_CIFAR10 = (
    'airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck',
)  # fmt: skip


def _single(name: str, **options: Any) -> Benchmark:
    return Benchmark({('', 0): name}, **options)


def _corrupted(name: str, names: Mapping[str, str]) -> dict[tuple[str, int], str]:
    return {(c, s): f'{name}/{names.get(c, c)}_{s}' for c in ALEXNET for s in SEVERITIES}


BENCHMARKS = {
    'imagenet_real': _single('imagenet2012_real', split='validation', label='real_label'),
    'imagenet_v2': _single('imagenet_v2/matched-frequency'),
    'imagenet_v2/threshold-0.7': _single('imagenet_v2/threshold-0.7'),
    'imagenet_v2/topimages': _single('imagenet_v2/topimages'),
    'imagenet_a': _single('imagenet_a', subset='imagenet_a_classes.txt'),
    'imagenet_r': _single('imagenet_r', subset='imagenet_r_classes.txt'),
    'imagenet_sketch': _single('imagenet_sketch'),
    'imagenet_c': Benchmark(
        _corrupted('imagenet2012_corrupted', {}), 'validation', cropped=True, reference=ALEXNET
    ),
    'cifar10_1': _single('cifar10_1/v6', classes=_CIFAR10),
    'cifar10_1/v4': _single('cifar10_1/v4', classes=_CIFAR10),
    'cifar10_c': Benchmark(_corrupted('cifar10_corrupted', _CIFAR_NAMES), classes=_CIFAR10),
}
