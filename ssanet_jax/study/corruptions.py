"""Corruptions of small images after ImageNet-C (Hendrycks and Dietterich 2019).

https://arxiv.org/abs/1903.12261. Each is called as `corrupt(images, first)`: images uint8
[N, H, W, 3] to the same shape and dtype, `first` the index of images[0] in its dataset.

Random numbers depend only on the kind and the image's index, so that batches of any size give the
same images. The channels of a pixel share them, so that gray images stay gray; in ImageNet-C each
channel has its own.
"""

import zlib
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image
from scipy import ndimage

Corruption = Callable[[np.ndarray, int], np.ndarray]


def gaussian_noise(images: np.ndarray, first: int, *, std: float) -> np.ndarray:
    """Adds normal noise; `std` as a share of 255."""

    def noise(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        return rng.standard_normal(x.shape[:2], np.float32)

    return _to_uint8(images + np.float32(255 * std) * _draw('gaussian_noise', images, first, noise))


def shot_noise(images: np.ndarray, first: int, *, photons: float) -> np.ndarray:
    """Adds the noise of a Poisson count, of mean `photons` for white, of a pixel's mean channel."""

    def noise(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
        gray = np.mean(x, axis=-1)  # [H, W]
        return (rng.poisson(gray * (photons / 255)) * (255 / photons) - gray).astype(np.float32)

    return _to_uint8(images + _draw('shot_noise', images, first, noise))


def impulse_noise(images: np.ndarray, first: int, *, amount: float) -> np.ndarray:
    """Makes a share `amount` of the pixels black or white, with equal probability."""
    u = _draw('impulse_noise', images, first, lambda rng, x: rng.random(x.shape[:2]))
    black, white = u < amount / 2, u >= 1 - amount / 2
    return np.where(black, 0, np.where(white, 255, images)).astype(np.uint8)


def gaussian_blur(images: np.ndarray, first: int, *, sigma: float) -> np.ndarray:
    """Convolves with a Gaussian; `sigma` as a share of the height, edges repeated."""
    del first
    pixels = sigma * images.shape[1]
    blurred = ndimage.gaussian_filter(
        images.astype(np.float32), pixels, mode='nearest', axes=(1, 2)
    )
    return _to_uint8(blurred)


def pixelate(images: np.ndarray, first: int, *, scale: float) -> np.ndarray:
    """Resizes to `scale` of the height and width and back, by area averaging."""
    del first
    height, width = images.shape[1:3]
    small = int(scale * width), int(scale * height)
    box = Image.Resampling.BOX
    resized = [
        Image.fromarray(image).resize(small, box).resize((width, height), box) for image in images
    ]
    return np.stack([np.asarray(image) for image in resized])


def contrast(images: np.ndarray, first: int, *, factor: float) -> np.ndarray:
    """Multiplies the deviations from each channel's mean by `factor`."""
    del first
    mean = np.mean(images, axis=(1, 2), keepdims=True, dtype=np.float32)
    return _to_uint8((images - mean) * np.float32(factor) + mean)


def brightness(images: np.ndarray, first: int, *, offset: float) -> np.ndarray:
    """Adds `offset`, as a share of 255, to all channels; ImageNet-C adds it to the HSV value."""
    del first
    return _to_uint8(images + np.float32(255 * offset))


def shift(images: np.ndarray, first: int, *, distance: float) -> np.ndarray:
    """Moves the image by `distance`, as a share of the height, and fills with black.

    In one of eight directions, drawn for each image; diagonals move by `distance` along both axes.
    Not in ImageNet-C.
    """
    n, height, width, _ = images.shape
    pixels = round(distance * height)
    directions = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    chosen = _draw('shift', images, first, lambda rng, x: rng.integers(8, size=1))
    start = pixels * (1 + np.array(directions)[chosen.reshape(n)])  # [N, 2]
    edge = (pixels, pixels)
    padded = np.pad(images, ((0, 0), edge, edge, (0, 0)))
    rows = start[:, 0, None, None] + np.arange(height)[:, None]  # [N, H, 1]
    columns = start[:, 1, None, None] + np.arange(width)  # [N, 1, W]
    return padded[np.arange(n)[:, None, None], rows, columns]


def _draw(
    kind: str,
    images: np.ndarray,
    first: int,
    sample: Callable[[np.random.Generator, np.ndarray], np.ndarray],
) -> np.ndarray:
    """sample(rng, image) of each image, stacked, with a last axis of 1 for the channels."""
    seed = zlib.crc32(kind.encode())
    samples = [
        sample(np.random.default_rng([seed, first + i]), image) for i, image in enumerate(images)
    ]
    return np.asarray(samples)[..., None]


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


# Levels of noise, contrast and brightness are ImageNet-C's severities 1, 3 and 5. Its blur, at most
# 6 of 224 pixels, would not show in small images, and its pixelation would leave 2 of 8 pixels.
_LEVELS: list[tuple[Callable[..., np.ndarray], str, tuple[float, float, float]]] = [
    (gaussian_noise, 'std', (0.08, 0.18, 0.38)),
    (shot_noise, 'photons', (60, 12, 3)),
    (impulse_noise, 'amount', (0.03, 0.09, 0.27)),
    (gaussian_blur, 'sigma', (0.05, 0.075, 0.1)),
    (pixelate, 'scale', (0.75, 0.5, 0.375)),
    (contrast, 'factor', (0.4, 0.2, 0.05)),
    (brightness, 'offset', (0.1, 0.3, 0.5)),
    (shift, 'distance', (0.125, 0.25, 0.375)),
]

# 'gaussian_noise_1' to 'shift_3'.
CORRUPTIONS: dict[str, Corruption] = {
    f'{corrupt.__name__}_{severity}': partial(corrupt, **{option: level})
    for corrupt, option, levels in _LEVELS
    for severity, level in enumerate(levels, start=1)
}
