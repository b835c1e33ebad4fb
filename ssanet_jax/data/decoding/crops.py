"""Positions of crops, in pixels of the image. Pure NumPy."""

import functools
from collections.abc import Sequence

import numpy as np

from ssanet_jax.config.sizes import resized_side

_ATTEMPTS = 10  # at a crop that fits


def center_window(sides: Sequence[int], size: int, fraction: float) -> np.ndarray:
    """Returns the center crop [[top, left], [bottom, right]] of an image, float64 [2, 2].

    Args:
      sides: height and width of the image.
      size: height and width of the resized crop.
      fraction: `size` over the short side of the resized image.
    """
    whole = np.asarray(sides)
    resized = whole * resized_side(size, fraction) // whole.min()  # the long side is rounded down
    corner = np.round((resized - size) / 2)
    scale = whole / resized
    return np.stack([corner * scale, np.minimum((corner + size) * scale, whole)])


def crop_windows(
    sides: np.ndarray, uniforms: np.ndarray, area: Sequence[float], aspect: Sequence[float]
) -> np.ndarray:
    """Returns random resized crops int32 [n, 4], each (top, left, height, width).

    The area relative to the image is uniform in `area`, the logarithm of width / height is
    uniform in that of `aspect`, and the position is uniform where the crop fits. The first of
    ten attempts that fits is taken, else the largest central crop of an allowed aspect. This
    is torchvision's RandomResizedCrop, with which the SSANet authors trained; TensorFlow's
    sample_distorted_bounding_box draws smaller crops.

    Args:
      sides: height and width of the images, int [n, 2].
      uniforms: in [0, 1), float32 [n, 22]: top and left, ten areas, ten aspects.
      area: lowest and highest relative area.
      aspect: lowest and highest width / height.
    """
    whole = np.asarray(sides, np.float64)  # [n, 2]
    place, areas, aspects = np.split(uniforms.astype(np.float64), [2, 2 + _ATTEMPTS], axis=1)
    low, high = np.log(aspect)
    side = np.sqrt(whole.prod(axis=1, keepdims=True) * (area[0] + (area[1] - area[0]) * areas))
    stretch = np.exp((low + (high - low) * aspects) / 2)
    attempts = np.round(np.stack([side / stretch, side * stretch], axis=2))  # [n, 10, 2]
    fits = np.all((attempts <= whole[:, None]) & (attempts >= 1), axis=2)  # [n, 10]
    rows, first = np.arange(len(whole)), fits.argmax(axis=1)
    any_fits = fits[rows, first][:, None]

    largest = np.round(np.stack([whole[:, 1] / aspect[0], whole[:, 0] * aspect[1]], axis=1))
    chosen = np.where(any_fits, attempts[rows, first], np.clip(largest, 1, whole))
    free = whole - chosen
    corner = np.floor(np.where(any_fits, place * (free + 1), free / 2))
    return np.concatenate([corner, chosen], axis=1).astype(np.int32)


def reduced_windows(windows: np.ndarray, halvings: np.ndarray) -> np.ndarray:
    """Returns `windows` int [n, 4], (top, left, height, width), in images halved k times, int32.

    Edges are rounded to the nearest pixel of the reduced image, half to even, so that crops are
    displaced in no direction on average.
    """
    edges = np.concatenate([windows[:, :2], windows[:, :2] + windows[:, 2:]], axis=1)
    corner, end = np.split(np.round(edges / 2 ** halvings[:, None]), 2, axis=1)
    return np.concatenate([corner, np.maximum(end - corner, 1)], axis=1).astype(np.int32)


def draw_resized(keys: np.ndarray, seed: int) -> np.ndarray:
    """Draws uniforms in [0, 1), float32 [n, 23], multiples of 2**-23, by NumPy's Philox.

    The first says whether to flip; `crop_windows` takes the other 22.

    Args:
      keys: int64 [n, 2], epoch and number of each example.
      seed: of the crops.
    """
    words = np.empty((len(keys), 3 + 2 * _ATTEMPTS), np.uint64)
    for row, (epoch, number) in zip(words, keys.tolist(), strict=True):
        philox = np.random.Philox(key=(seed << 96) + (epoch << 64) + number)
        row[:] = philox.random_raw(len(row))  # raw words are the same in all versions, NEP 19
    return (words >> np.uint64(41)).astype(np.float32) * np.float32(2**-23)


def draw_padded(keys: np.ndarray, seed: int, num_examples: int, padding: int) -> np.ndarray:
    """Draws crops of padded images, int64 [n, 3], each (top, left, flipped).

    Corners are uniform in 0..2 * padding; half of the crops are flipped.

    Args:
      keys: int64 [n, 2], epoch and number of each example.
      seed: of the crops.
      num_examples: size of the split.
      padding: pixels on each side.
    """
    draws = np.empty((len(keys), 3), np.int64)
    for epoch in np.unique(keys[:, 0]):
        rows = keys[:, 0] == epoch
        draws[rows] = _padded_crops(seed, int(epoch), num_examples, padding)[keys[rows, 1]]
    return draws


@functools.lru_cache(maxsize=16)
def _padded_crops(seed: int, epoch: int, num_examples: int, padding: int) -> np.ndarray:
    """The crops of all examples in one epoch, int64 [num_examples, 3]."""
    rng = np.random.default_rng((seed, epoch))
    rng.permutation(num_examples)  # the order of the epoch comes first, see sources.shuffled
    corner = rng.integers(0, 2 * padding, size=(num_examples, 2), endpoint=True)
    flipped = rng.random(num_examples) < 0.5
    return np.concatenate([corner, flipped[:, None]], axis=1)
