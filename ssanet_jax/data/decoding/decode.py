"""Decodes images into crops uint8 [n, size, size, 3]: fast for training, exact for evaluation.

libjpeg-turbo decodes JPEGs, OpenCV resizes training crops, and Pillow does all antialiased
resizing. All of them release Python's lock. docs/data.md has the cost of each choice and its
difference from Pillow.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.config.sizes import eval_size
from ssanet_jax.data.augmentation import augment
from ssanet_jax.data.decoding.crops import center_window, crop_windows, draw_padded, draw_resized
from ssanet_jax.data.decoding.formats import BadImageError
from ssanet_jax.data.decoding.images import decode_image, reason
from ssanet_jax.data.decoding.jpeg_parts import decode_part, find_parts

_PIL = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
_CV2 = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
_Box = tuple[float, float, float, float]  # left, top, right, bottom


class DecodeSpec(NamedTuple):
    """Options of decoding and cropping.

    Attributes:
      dataset: `config.dataset`; reads the sizes, the limits, and the options of `crop`.
      crop: 'resized' and 'padded' are random, 'center' and 'whole' are not.
      seed: of the random crops and their augmentation.
      num_examples: size of the split; for 'padded' only.
    """

    dataset: ConfigDict
    crop: str
    seed: int = 0
    num_examples: int = 0

    @property
    def size(self) -> int:
        """Height and width of the crops; of random ones, the largest."""
        random = self.crop in ('resized', 'padded')
        return self.dataset.image_size if random else eval_size(self.dataset)


def decode(
    files: Sequence[bytes | np.ndarray], keys: np.ndarray, out: np.ndarray, spec: DecodeSpec
) -> dict[int, str]:
    """Decodes, crops and augments files into `out`; each row depends only on its file and key.

    For 'resized', JPEGs are decoded inside the crop only, with the fast integer DCT and without
    smoothing the color planes. A crop of at least twice the size of `out` is decoded at half (a
    quarter, an eighth) of its size, from the low frequencies of the DCT, which antialiases it.
    All else is decoded exactly.

    Args:
      files: as `decode_image` takes them, rotated by Exif, composited on white.
      keys: int64 [n, 2], epoch and number of each example; with `spec.seed` they determine
        the random crops and their augmentation.
      out: uint8 [n, size, size, 3], written; black where a file cannot be decoded.
      spec: the crop and its options.

    Returns:
      {row: reason} for files that cannot be decoded or exceed a limit.
    """
    draws = draw(keys, spec)
    parts = {}
    if spec.crop == 'resized':
        parts = find_parts(files, draws[:, 1:], out.shape[1], spec.dataset)
    bad: dict[int, str] = {}
    for row, file in enumerate(files):
        try:
            if row in parts:
                _resize(decode_part(parts[row]), draws[row], out[row], spec.dataset)
            else:
                crop(decode_image(file, spec.dataset), draws[row], out[row], spec)
        except BadImageError as error:
            out[row] = 0
            bad[row] = reason(error, file)
    if spec.crop in ('resized', 'padded'):
        augment(out, keys, spec.dataset, spec.seed, skip=bad)
    return bad


def decode_whole(
    files: Sequence[bytes | np.ndarray], dataset: ConfigDict
) -> tuple[list[np.ndarray], dict[int, str]]:
    """Decodes files at their original sizes; returns images uint8 [H, W, 3] and {row: reason}.

    Files that cannot be decoded become one black pixel.
    """
    images, bad = [], {}
    for row, file in enumerate(files):
        try:
            images.append(decode_image(file, dataset))
        except BadImageError as error:
            images.append(np.zeros((1, 1, 3), np.uint8))
            bad[row] = reason(error, file)
    return images, bad


def draw(keys: np.ndarray, spec: DecodeSpec) -> np.ndarray:
    """Draws the random crops of `keys` int64 [n, 2] (epoch, number); a pure function.

    Returns:
      'resized': uniforms in [0, 1), float32 [n, 23]: flipped if below 0.5, then the 22 of
      `crop_windows`. 'padded': int64 [n, 3], (top, left, flipped). Otherwise [n, 0].
    """
    if spec.crop == 'resized':
        return draw_resized(keys, spec.seed)
    if spec.crop == 'padded':
        draws = draw_padded(keys, spec.seed, spec.num_examples, spec.dataset.crop_padding)
        draws[:, 2] &= spec.dataset.flip
        return draws
    return np.empty((len(keys), 0))


def crop(image: np.ndarray, draw: np.ndarray, out: np.ndarray, spec: DecodeSpec) -> None:
    """Crops a decoded image uint8 [H, W, 3] into `out` uint8 [size, size, 3]."""
    size = len(out)
    if spec.crop == 'resized':
        area, aspect = spec.dataset.crop_area, spec.dataset.crop_aspect
        sides = np.array([image.shape[:2]])
        ((top, left, height, width),) = crop_windows(sides, draw[None, 1:], area, aspect)
        part = np.ascontiguousarray(image[top : top + height, left : left + width])
        _resize(part, draw, out, spec.dataset)
    elif spec.crop == 'padded':
        padding = spec.dataset.crop_padding
        padded = np.zeros((size + 2 * padding, size + 2 * padding, 3), np.uint8)
        padded[padding : padding + size, padding : padding + size] = _fit(image, size)
        crop_padded([padded], draw[None], out[None])
    elif spec.crop == 'center':
        fraction, interpolation = spec.dataset.eval_crop_pct, spec.dataset.interpolation
        (top, left), (bottom, right) = center_window(image.shape[:2], size, fraction)
        out[:] = _pil_resize(image, size, interpolation, (left, top, right, bottom))
    else:
        out[:] = _fit(image, size)


def crop_padded(padded: Iterable[np.ndarray], draws: np.ndarray, out: np.ndarray) -> None:
    """Crops n padded images at `draws` [n, 3], (top, left, flipped), into `out`."""
    size = out.shape[1]
    for image, (top, left, flipped), square in zip(padded, draws.tolist(), out, strict=True):
        part = image[top : top + size, left : left + size]
        if flipped:
            cv2.flip(part, 1, square)
        else:
            square[:] = part


def _resize(part: np.ndarray, draw: np.ndarray, out: np.ndarray, dataset: ConfigDict) -> None:
    size = len(out)
    if dataset.antialias:
        out[:] = _pil_resize(part, size, dataset.interpolation)
    else:
        cv2.resize(part, (size, size), out, interpolation=_CV2[dataset.interpolation])
    if draw[0] < 0.5 and dataset.flip:
        cv2.flip(out, 1, out)


def _pil_resize(
    image: np.ndarray, size: int, interpolation: str, box: _Box | None = None
) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((size, size), _PIL[interpolation], box))


def _fit(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an uncropped image to [size, size, 3], bilinearly and antialiased."""
    return image if image.shape[:2] == (size, size) else _pil_resize(image, size, 'bilinear')
