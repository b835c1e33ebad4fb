"""Where crops of images are, in pixels of the image."""

from collections.abc import Sequence

import numpy as np

ATTEMPTS = 10  # at a crop that fits


def center_window(sides: Sequence[int], size: int, fraction: float) -> np.ndarray:
    """Where centre crops are: [[top, left], [bottom, right]] in pixels of the image.

    Args:
      sides: the image's height and width.
      size: of the result.
      fraction: of the short side that is shown.
    """
    whole = np.asarray(sides)
    resized = whole * round(size / fraction) // whole.min()  # the long side is rounded down
    corner = np.round((resized - size) / 2)
    scale = whole / resized
    return np.stack([corner * scale, np.minimum((corner + size) * scale, whole)])


def crop_windows(
    sides: np.ndarray, uniforms: np.ndarray, area: Sequence[float], aspect: Sequence[float]
) -> np.ndarray:
    """Where random resized crops are: int32 [n, 4], each (top, left, height, width).

    The share of the image's area is uniform in `area`, the logarithm of width over height in
    that of `aspect`, the place among those where the crop fits. The first of ten attempts
    that fits is taken, else the largest central crop of an allowed aspect. This is
    torchvision's RandomResizedCrop, with which the SSANet authors trained; TensorFlow's
    sample_distorted_bounding_box draws smaller crops.

    Args:
      sides: the images' height and width, int [n, 2].
      uniforms: in [0, 1), float32 [n, 22]: for the place's top and left, for ten areas and
        for ten aspects.
      area: lowest and highest share.
      aspect: lowest and highest width over height.
    """
    whole = np.asarray(sides, np.float64)  # [n, 2]
    place, areas, aspects = np.split(uniforms.astype(np.float64), [2, 2 + ATTEMPTS], axis=1)
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
