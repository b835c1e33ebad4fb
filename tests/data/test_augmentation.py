"""Operations and policies against timm and torchvision, whose values golden/ has."""

import itertools
import json
import re

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from ssanet_jax.data.augmentation.erasing import Cutout, RandomErasing
from ssanet_jax.data.augmentation.operations import OPERATIONS, Sampling
from ssanet_jax.data.augmentation.policies import (
    BICUBIC,
    BILINEAR,
    RAND_VALUES,
    WIDE_VALUES,
    ColorJitter,
    RandAugment,
    make_policy,
    trivial_augment_wide,
)
from tests.golden import rule
from tests.helpers import ROOT

GOLDEN = json.loads((ROOT / 'tests/golden/augmentation.json').read_text())
FILL = tuple(GOLDEN['fill'])
PICTURES = rule.pictures()
BLACK_OUTSIDE = Sampling(BILINEAR, (0, 0, 0))


def ours(name):
    """Our name of an operation of timm or torchvision."""
    name = name.removesuffix('Increasing').replace('Rel', 'Relative')
    return re.sub(r'(?<=.)([A-Z])', r'_\1', name).lower()


def pixels(images):
    return rule.pixels_digest(images)


class Replay:
    """A generator that returns given values, whatever is asked for."""

    def __init__(self, values):
        self.values = list(values)

    def _next(self, *args, **kwargs):
        return self.values.pop(0)

    random = uniform = integers = normal = permutation = _next


@pytest.mark.parametrize('name', GOLDEN['rand_operations'])
def test_operations_of_rand_augment_equal_timms(name):
    golden = GOLDEN['rand_operations'][name]
    value_of, operate = RAND_VALUES[ours(name)], OPERATIONS[ours(name)]
    values = [value_of(m / 10, sign) for sign in (1, -1) for m in GOLDEN['magnitudes']]
    assert golden['values'] in (values, [])
    images = [
        operate(picture, value, Sampling(resample, FILL))
        for value, resample, picture in itertools.product(values, (BILINEAR, BICUBIC), PICTURES)
    ]
    assert pixels(images) == golden['pixels']


def test_rand_augment_equals_timms_when_it_draws_the_same():
    augment = make_policy('rand-m7-mstd0.5-inc1', FILL)
    assert augment == RandAugment(7.0, 0.5, FILL)
    numbers = {name: number for number, name in enumerate(RAND_VALUES)}
    for picture, (steps, digest) in zip(itertools.cycle(PICTURES), GOLDEN['rand_runs']):
        draws = [np.array([numbers[ours(name)] for name, *_ in steps])]
        for _, uniforms, magnitude, resample in steps:
            uniforms = [*uniforms, 0.0][:2]
            bicubic = resample == BICUBIC
            draws += [np.array(uniforms), magnitude or 0.0, 0.0 if bicubic else 1.0]
        assert pixels([augment(picture, Replay(draws))]) == digest


def test_rand_augment_has_timms_operations():
    assert list(RAND_VALUES) == list(map(ours, GOLDEN['rand_operations']))


@pytest.mark.parametrize('name', GOLDEN['wide_operations'])
def test_operations_of_trivial_augment_equal_torchvisions(name):
    """Shifts are to the left here, as in timm, and to the right in torchvision."""
    golden = GOLDEN['wide_operations'][name]
    values = WIDE_VALUES[ours(name)]
    theirs = [s * m for s in ((1, -1) if golden['signed'] else (1,)) for m in golden['magnitudes']]
    if 'Translate' in name:
        assert sorted(values) == sorted(int(value) for value in theirs)
        values = [-int(value) for value in theirs]
    elif name in ('Brightness', 'Color', 'Contrast', 'Sharpness'):
        assert values == [1 + value for value in theirs]
    else:
        assert values == theirs
    operate = OPERATIONS[ours(name)]
    images = [operate(p, v, BLACK_OUTSIDE) for v, p in itertools.product(values, PICTURES)]
    assert pixels(images) == golden['pixels']


def test_trivial_augment_equals_torchvisions_when_it_draws_the_same():
    names = list(WIDE_VALUES)
    assert names == list(map(ours, GOLDEN['wide_operations']))
    for picture, (drawn, digest) in zip(itertools.cycle(PICTURES), GOLDEN['wide_runs']):
        number, place, negative = [*drawn, 0, 0][:3]
        negative ^= 'translate' in names[number]
        draws = [number, place + 31 * negative]
        assert pixels([trivial_augment_wide(picture, Replay(draws))]) == digest


PILLOWS = {
    'auto_contrast': lambda image, _: ImageOps.autocontrast(image),
    'equalize': lambda image, _: ImageOps.equalize(image),
    'invert': lambda image, _: ImageOps.invert(image),
    'posterize': lambda image, bits: ImageOps.posterize(image, bits % 9),
    'solarize': ImageOps.solarize,
    'sharpness': lambda image, number: ImageEnhance.Sharpness(image).enhance(number / 100),
    'brightness': lambda image, number: ImageEnhance.Brightness(image).enhance(number / 100),
    'contrast': lambda image, number: ImageEnhance.Contrast(image).enhance(number / 100),
}


@pytest.mark.parametrize('name', PILLOWS)
def test_operations_without_pillow_equal_pillows(name):
    """Noise between two random levels, of random sizes down to one pixel."""
    rng = np.random.default_rng(7)
    for number in range(0, 250, 5):
        low, high = sorted(rng.integers(0, 257, 2).tolist())
        sides = rng.integers(1, 60, 2)
        image = rng.integers(low, max(high, low + 1), (*sides, 3)).clip(0, 255).astype(np.uint8)
        value = number / 100 if name in ('sharpness', 'brightness', 'contrast') else number
        value = number % 9 if name == 'posterize' else value
        np.testing.assert_array_equal(
            OPERATIONS[name](image, value, BLACK_OUTSIDE),
            PILLOWS[name](Image.fromarray(image), number),
        )


def test_color_jitter_equals_torchvisions_when_it_draws_the_same():
    jitter = ColorJitter(*GOLDEN['jitter']['strengths'])
    for picture, (order, values, digest) in zip(
        itertools.cycle(PICTURES), GOLDEN['jitter']['runs']
    ):
        draws = [np.array(order), *(values[number] for number in order)]
        assert pixels([jitter(picture, Replay(draws))]) == digest


@pytest.mark.parametrize('library', ['timm', 'torchvision'])
def test_random_erasing_equals_that_of_timm_and_torchvision(library):
    for image, (drawn, digest) in zip(itertools.cycle(rule.pictures()), GOLDEN['erasing'][library]):
        image = image.copy()
        # They draw logarithms of ratios too.
        RandomErasing(0.8, np.zeros(3, np.uint8))(image, Replay(drawn))
        assert rule.pixels_digest([image]) == digest


def test_cutout_equals_the_published_code():
    """The loop of github uoguelph-mlrg/Cutout, with its arithmetic."""
    rng, image = np.random.default_rng(0), rule.pictures()[1]
    color = np.array([1, 2, 3], np.uint8)
    for _ in range(50):
        y, x = rng.integers(40), rng.integers(33)
        expected = image.copy()
        for row, column in np.ndindex(40, 33):
            if y - 8 <= row < y + 8 and x - 8 <= column < x + 8:
                expected[row, column] = color
        erased = image.copy()
        Cutout(16, color)(erased, Replay([y, x]))
        np.testing.assert_array_equal(erased, expected)
