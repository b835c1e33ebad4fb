"""Random choices of operations: RandAugment, TrivialAugment and color jitter."""

import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image

from ssanet_jax.config.augmentation_fields import RAND_AUGMENT
from ssanet_jax.data.augmentation.operations import OPERATIONS, Color, Sampling

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]

BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
_BLACK = (0, 0, 0)


def make_policy(name: str, fill: Color) -> Policy:
    """Makes the policy of `dataset.augment`.

    Args:
      name: 'trivial_wide', or of the form 'rand-m7-mstd0.5-inc1'.
      fill: color that RandAugment shows outside the image.
    """
    if match := RAND_AUGMENT.fullmatch(name):
        return RandAugment(float(match['magnitude']), float(match['std']), fill)
    return trivial_augment_wide


def _unused(level: float, sign: int) -> float:
    return 0.0


def _factor(level: float, sign: int) -> float:
    return max(0.1, 1 + sign * (level * 0.9))


# timm's increasing operations, with their values for a level of 0 to 1 and a random sign.
RAND_VALUES: dict[str, Callable[[float, int], float]] = {
    'auto_contrast': _unused,
    'equalize': _unused,
    'invert': _unused,
    'rotate': lambda level, sign: sign * (level * 30),
    'posterize': lambda level, sign: 4 - int(level * 4),
    'solarize': lambda level, sign: 256 - int(level * 256),
    'solarize_add': lambda level, sign: int(level * 110),
    'color': _factor,
    'contrast': _factor,
    'brightness': _factor,
    'sharpness': _factor,
    'shear_x': lambda level, sign: sign * (level * 0.3),
    'shear_y': lambda level, sign: sign * (level * 0.3),
    'translate_x_relative': lambda level, sign: sign * (level * 0.45),
    'translate_y_relative': lambda level, sign: sign * (level * 0.45),
}


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """Applies two random operations, each with probability 1/2: timm's 'rand-mM-mstdS-inc1'.

    RandAugment (https://arxiv.org/abs/1909.13719) has one magnitude. timm's variant, with which
    ResNet strikes back (https://arxiv.org/abs/2110.00476) trains, draws one for each operation, and
    interpolates bilinearly or bicubically at random.

    Attributes:
      magnitude: mean of the magnitudes, which are clipped to 0..10.
      std: their standard deviation.
      fill: color outside the image.
    """

    magnitude: float
    std: float
    fill: Color

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        names = list(RAND_VALUES)
        for number in rng.integers(len(names), size=2).tolist():
            skipped, negative = rng.random(2) > 0.5
            level = min(max(rng.normal(self.magnitude, self.std), 0), 10) / 10
            sampling = Sampling(BICUBIC if rng.random() < 0.5 else BILINEAR, self.fill)
            if not skipped:
                value = RAND_VALUES[names[number]](level, -1 if negative else 1)
                image = OPERATIONS[names[number]](image, value, sampling)
        return image


def _bins(last: float) -> list[float]:
    """31 values from 0 to `last`, rounded as by torch.linspace: 15.999999 is a shift of 15."""
    number, end = np.arange(31), float(np.float32(last))
    step = float(np.float32(end / 30))
    values = np.where(number < 15, number * step, end - (30 - number) * step)
    return values.astype(np.float32).tolist()


def _signed(values: list[float]) -> list[float]:
    return [*values, *(-value for value in values)]


_FACTORS = [1 + value for value in _signed(_bins(0.99))]
_SHIFTS = _signed([float(int(value)) for value in _bins(32)])

# torchvision's operations, with their equally probable values.
WIDE_VALUES: dict[str, list[float]] = {
    'identity': [0.0],
    'shear_x': _signed(_bins(0.99)),
    'shear_y': _signed(_bins(0.99)),
    'translate_x': _SHIFTS,
    'translate_y': _SHIFTS,
    'rotate': _signed(_bins(135)),
    'brightness': _FACTORS,
    'color': _FACTORS,
    'contrast': _FACTORS,
    'sharpness': _FACTORS,
    'posterize': [float(8 - round(number / 5)) for number in range(31)],
    'solarize': [255 - value for value in _bins(255)],
    'auto_contrast': [0.0],
    'equalize': [0.0],
}


def trivial_augment_wide(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies one random operation with a random value: torchvision's TrivialAugmentWide.

    Bilinear and black outside the image, as in torchvision's recipes
    (https://arxiv.org/abs/2103.10158).
    """
    name = list(WIDE_VALUES)[rng.integers(len(WIDE_VALUES))]
    value = WIDE_VALUES[name][rng.integers(len(WIDE_VALUES[name]))]
    return OPERATIONS[name](image, value, Sampling(BILINEAR, _BLACK))


@dataclasses.dataclass(frozen=True)
class ColorJitter:
    """Changes brightness, contrast, saturation and hue in random order: torchvision's ColorJitter.

    Factors are uniform in 1 - strength to 1 + strength, with strengths of up to 1; the hue turns by
    up to `hue`, at most half, of a circle. A strength of 0 leaves out its operation.
    """

    brightness: float
    contrast: float
    color: float
    hue: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        strengths = list(dataclasses.asdict(self).items())
        for number in rng.permutation(4).tolist():
            name, strength = strengths[number]
            if strength:
                center = 0 if name == 'hue' else 1
                value = rng.uniform(center - strength, center + strength)
                image = OPERATIONS[name](image, value, Sampling(BILINEAR, _BLACK))
        return image
