"""Rectangles erased from images uint8 [H, W, 3], in place: random erasing and cutout."""

import math
from typing import NamedTuple

import numpy as np

_ATTEMPTS = 10  # at a rectangle that fits


class RandomErasing(NamedTuple):
    """Erases one random rectangle: RandomErasing of torchvision and timm (mode 'const').

    Its area is uniform in 0.02 to 0.33 of the image, and the logarithm of height / width in that of
    0.3 to 3.3, torchvision's defaults (https://arxiv.org/abs/1708.04896). Of ten attempts the first
    that fits counts. Both libraries erase with 0 after normalization, which is the mean color.

    Attributes:
      probability: of erasing anything.
      color: uint8 [3].
    """

    probability: float
    color: np.ndarray

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> None:
        if rng.random() >= self.probability:
            return
        height, width, _ = image.shape
        for _ in range(_ATTEMPTS):
            area = height * width * rng.uniform(0.02, 0.33)
            aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if h < height and w < width:
                top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
                image[top : top + h, left : left + w] = self.color
                return


class Cutout(NamedTuple):
    """Erases a square around a random pixel, up to the borders of the image.

    DeVries and Taylor 2017 (https://arxiv.org/abs/1708.04552), whose code erases with 0 after
    normalization, which is the mean color.

    Attributes:
      side: of the square, in pixels; even.
      color: uint8 [3].
    """

    side: int
    color: np.ndarray

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> None:
        height, width, _ = image.shape
        half, y, x = self.side // 2, rng.integers(height), rng.integers(width)
        image[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = self.color
