"""Operations on images uint8 [H, W, 3], each with one value, as timm and torchvision define them.

Pillow does the geometry. Tables of values are NumPy's and applied by OpenCV, since Pillow makes
them in Python, which takes longer than to apply them and blocks other threads.
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


Operation = Callable[[np.ndarray, float, Sampling], np.ndarray]


def shear_x(image: np.ndarray, factor: float, sampling: Sampling) -> np.ndarray:
    """Moves row y to the left by `factor` * y pixels."""
    return _affine(image, (1, factor, 0, 0, 1, 0), sampling)


def shear_y(image: np.ndarray, factor: float, sampling: Sampling) -> np.ndarray:
    """Moves column x up by `factor` * x pixels."""
    return _affine(image, (1, 0, 0, factor, 1, 0), sampling)


def translate_x(image: np.ndarray, pixels: float, sampling: Sampling) -> np.ndarray:
    """Moves an image to the left."""
    return _affine(image, (1, 0, pixels, 0, 1, 0), _for_shift(pixels, sampling))


def translate_y(image: np.ndarray, pixels: float, sampling: Sampling) -> np.ndarray:
    """Moves an image up."""
    return _affine(image, (1, 0, 0, 0, 1, pixels), _for_shift(pixels, sampling))


def rotate(image: np.ndarray, degrees: float, sampling: Sampling) -> np.ndarray:
    """Turns an image counterclockwise about its center."""
    turned = Image.fromarray(image).rotate(degrees, sampling.resample, fillcolor=sampling.fill)
    return np.asarray(turned)


def auto_contrast(image: np.ndarray, *_: object) -> np.ndarray:
    """Stretches each channel linearly to 0..255: ImageOps.autocontrast."""
    tables = [_LEVELS] * 3
    extrema = np.reshape(Image.fromarray(image).getextrema(), (3, 2))
    for channel, (low, high) in enumerate(extrema.tolist()):
        if high > low:
            scale = 255 / (high - low)
            tables[channel] = np.trunc(_LEVELS * scale - low * scale)
    return _look_up(image, np.stack(tables, axis=1))


def equalize(image: np.ndarray, *_: object) -> np.ndarray:
    """Makes the histogram of each channel nearly flat: ImageOps.equalize."""
    tables = [_LEVELS] * 3
    for channel, counts in enumerate(np.reshape(Image.fromarray(image).histogram(), (3, 256))):
        step = (counts.sum() - counts[counts > 0][-1]) // 255
        if step:
            below = np.cumsum(counts) - counts
            tables[channel] = (step // 2 + below) // step
    return _look_up(image, np.stack(tables, axis=1))


def invert(image: np.ndarray, *_: object) -> np.ndarray:
    return _look_up(image, 255 - _LEVELS)


def posterize(image: np.ndarray, bits: float, _: Sampling) -> np.ndarray:
    """Keeps the upper `bits` bits."""
    return _look_up(image, _LEVELS & -(2 ** (8 - int(bits))))


def solarize(image: np.ndarray, threshold: float, _: Sampling) -> np.ndarray:
    """Inverts values from `threshold` on."""
    return _look_up(image, np.where(threshold > _LEVELS, _LEVELS, 255 - _LEVELS))


def solarize_add(image: np.ndarray, added: float, _: Sampling) -> np.ndarray:
    """Adds `added` to values below 128."""
    return _look_up(image, np.where(_LEVELS < 128, _LEVELS + int(added), _LEVELS))


def brightness(image: np.ndarray, factor: float, _: Sampling) -> np.ndarray:
    """Blends an image with black: ImageEnhance.Brightness."""
    return _look_up(image, _blend(0, factor))


def contrast(image: np.ndarray, factor: float, _: Sampling) -> np.ndarray:
    """Blends an image with its mean gray level: ImageEnhance.Contrast."""
    gray = np.asarray(Image.fromarray(image).convert('L'))
    return _look_up(image, _blend(int(gray.mean() + 0.5), factor))


def color(image: np.ndarray, factor: float, _: Sampling) -> np.ndarray:
    """Blends an image with its gray levels."""
    return np.asarray(ImageEnhance.Color(Image.fromarray(image)).enhance(factor))


def sharpness(image: np.ndarray, factor: float, _: Sampling) -> np.ndarray:
    """Blends an image with a smooth one: ImageEnhance.Sharpness in less than half the time."""
    smooth = image.copy()
    smooth[1:-1, 1:-1] = cv2.filter2D(image, -1, _SMOOTH)[1:-1, 1:-1]
    return np.asarray(Image.blend(Image.fromarray(smooth), Image.fromarray(image), factor))


def hue(image: np.ndarray, turns: float, _: Sampling) -> np.ndarray:
    """Turns all hues by `turns`, -0.5 to 0.5, in steps of 1 / 255."""
    pixels = np.array(Image.fromarray(image).convert('HSV'))
    pixels[..., 0] += np.uint8(int(turns * 255) % 256)
    height, width, _ = image.shape
    return np.asarray(Image.frombytes('HSV', (width, height), pixels).convert('RGB'))


OPERATIONS: dict[str, Operation] = {
    'identity': lambda image, *_: image,
    'auto_contrast': auto_contrast,
    'equalize': equalize,
    'invert': invert,
    'posterize': posterize,
    'solarize': solarize,
    'solarize_add': solarize_add,
    'brightness': brightness,
    'contrast': contrast,
    'color': color,
    'sharpness': sharpness,
    'hue': hue,
    'rotate': rotate,
    'shear_x': shear_x,
    'shear_y': shear_y,
    'translate_x': translate_x,
    'translate_y': translate_y,
    'translate_x_relative': lambda image, part, how: translate_x(image, part * image.shape[1], how),
    'translate_y_relative': lambda image, part, how: translate_y(image, part * image.shape[0], how),
}


def _affine(image: np.ndarray, matrix: tuple[float, ...], sampling: Sampling) -> np.ndarray:
    whole = Image.fromarray(image)
    resample, fill = sampling
    return np.asarray(
        whole.transform(whole.size, Image.Transform.AFFINE, matrix, resample, fillcolor=fill)
    )


def _for_shift(pixels: float, sampling: Sampling) -> Sampling:
    """Interpolation does nothing at whole pixels but takes ten times as long."""
    nearest = sampling._replace(resample=Image.Resampling.NEAREST)
    return nearest if pixels == int(pixels) else sampling


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replaces values by those of a table [256], or one for each channel [256, 3]."""
    clipped = np.clip(table, 0, 255).astype(np.uint8)
    return cv2.LUT(image, clipped.reshape(1, 256, -1))


def _blend(gray: int, factor: float) -> np.ndarray:
    """The table of Image.blend of one gray level and an image, in its arithmetic."""
    difference = (_LEVELS - gray).astype(np.float32)
    return np.float32(gray) + np.float32(factor) * difference
