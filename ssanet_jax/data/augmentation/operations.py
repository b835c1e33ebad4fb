"""Operations on RGB images of Pillow, each with one value, as timm and torchvision define them.

Pillow does the geometry and the blending. Tables of values are NumPy's and applied by OpenCV, since
Pillow makes them in Python, which takes longer than to apply them and blocks other threads.
"""

from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageEnhance

Color = tuple[int, int, int]

_LEVELS = np.arange(256)
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13  # ImageFilter.SMOOTH


class Sampling(NamedTuple):
    """How geometric operations find pixels between and outside those of an image."""

    resample: Image.Resampling
    fill: Color


Operation = Callable[[Image.Image, float, Sampling], Image.Image]


def shear_x(image: Image.Image, factor: float, sampling: Sampling) -> Image.Image:
    """Moves row y to the left by `factor` * y pixels."""
    return _affine(image, (1, factor, 0, 0, 1, 0), sampling)


def shear_y(image: Image.Image, factor: float, sampling: Sampling) -> Image.Image:
    """Moves column x up by `factor` * x pixels."""
    return _affine(image, (1, 0, 0, factor, 1, 0), sampling)


def translate_x(image: Image.Image, pixels: float, sampling: Sampling) -> Image.Image:
    """Moves an image to the left."""
    return _affine(image, (1, 0, pixels, 0, 1, 0), _for_shift(pixels, sampling))


def translate_y(image: Image.Image, pixels: float, sampling: Sampling) -> Image.Image:
    """Moves an image up."""
    return _affine(image, (1, 0, 0, 0, 1, pixels), _for_shift(pixels, sampling))


def rotate(image: Image.Image, degrees: float, sampling: Sampling) -> Image.Image:
    """Turns an image counterclockwise about its center."""
    return image.rotate(degrees, sampling.resample, fillcolor=sampling.fill)


def auto_contrast(image: Image.Image, *_: object) -> Image.Image:
    """Stretches each channel linearly to 0..255: ImageOps.autocontrast."""
    tables = [_LEVELS] * 3
    for channel, (low, high) in enumerate(np.reshape(image.getextrema(), (3, 2)).tolist()):
        if high > low:
            scale = 255 / (high - low)
            tables[channel] = np.trunc(_LEVELS * scale - low * scale)
    return _look_up(image, np.stack(tables, axis=1))


def equalize(image: Image.Image, *_: object) -> Image.Image:
    """Makes the histogram of each channel nearly flat: ImageOps.equalize."""
    tables = [_LEVELS] * 3
    for channel, counts in enumerate(np.reshape(image.histogram(), (3, 256))):
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        if step:
            below = np.cumsum(counts) - counts
            tables[channel] = (step // 2 + below) // step
    return _look_up(image, np.stack(tables, axis=1))


def invert(image: Image.Image, *_: object) -> Image.Image:
    return _look_up(image, 255 - _LEVELS)


def posterize(image: Image.Image, bits: float, _: Sampling) -> Image.Image:
    """Keeps the upper `bits` bits."""
    return _look_up(image, _LEVELS & -(2 ** (8 - int(bits))))


def solarize(image: Image.Image, threshold: float, _: Sampling) -> Image.Image:
    """Inverts values from `threshold` on."""
    return _look_up(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(image: Image.Image, added: float, _: Sampling) -> Image.Image:
    """Adds `added` to values below 128."""
    return _look_up(image, np.where(_LEVELS < 128, _LEVELS + int(added), _LEVELS))


def sharpness(image: Image.Image, factor: float, _: Sampling) -> Image.Image:
    """Blends an image with a smooth one: ImageEnhance.Sharpness in less than half the time."""
    sharp = np.asarray(image)
    smooth = sharp.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(sharp, -1, _SMOOTH)[1:-1, 1:-1]
    return Image.blend(Image.fromarray(smooth), image, factor)


def hue(image: Image.Image, turns: float, _: Sampling) -> Image.Image:
    """Turns all hues by `turns`, -0.5 to 0.5, in steps of 1 / 255."""
    pixels = np.array(image.convert('HSV'))
    pixels[..., 0] += np.uint8(int(turns * 255) % 256)
    return Image.frombytes('HSV', image.size, pixels).convert('RGB')


OPERATIONS: dict[str, Operation] = {
    'identity': lambda image, *_: image,
    'auto_contrast': auto_contrast,
    'equalize': equalize,
    'invert': invert,
    'posterize': posterize,
    'solarize': solarize,
    'solarize_add': solarize_add,
    'brightness': lambda image, factor, _: ImageEnhance.Brightness(image).enhance(factor),
    'contrast': lambda image, factor, _: ImageEnhance.Contrast(image).enhance(factor),
    'color': lambda image, factor, _: ImageEnhance.Color(image).enhance(factor),
    'sharpness': sharpness,
    'hue': hue,
    'rotate': rotate,
    'shear_x': shear_x,
    'shear_y': shear_y,
    'translate_x': translate_x,
    'translate_y': translate_y,
    'translate_x_relative': lambda image, part, how: translate_x(image, part * image.width, how),
    'translate_y_relative': lambda image, part, how: translate_y(image, part * image.height, how),
}


def _affine(image: Image.Image, matrix: tuple[float, ...], sampling: Sampling) -> Image.Image:
    resample, fill = sampling
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, resample=resample, fillcolor=fill
    )


def _for_shift(pixels: float, sampling: Sampling) -> Sampling:
    """Interpolation does nothing at whole pixels but takes ten times as long."""
    nearest = sampling._replace(resample=Image.Resampling.NEAREST)
    return nearest if pixels == int(pixels) else sampling


def _look_up(image: Image.Image, table: np.ndarray) -> Image.Image:
    """Replaces values by those of a table [256], or one for each channel [256, 3]."""
    clipped = np.clip(table, 0, 255).astype(np.uint8)
    return Image.fromarray(cv2.LUT(np.asarray(image), clipped.reshape(1, 256, -1)))
