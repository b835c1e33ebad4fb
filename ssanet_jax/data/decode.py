"""Decodes images into crops uint8 [n, size, size, 3]: fast for training, exact for evaluation.

TensorFlow decodes, since it alone decodes a part of a JPEG; OpenCV resizes training crops, and
Pillow does all antialiased resizing. All of them release Python's lock. docs/data.md has the cost
of each choice and its difference from Pillow.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.data import jpeg
from ssanet_jax.data.augmentation import augment
from ssanet_jax.data.crops import center_window, crop_windows, draw_padded

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'  # the sides follow; PNGs that start otherwise are refused
_PIL = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
_CV2 = {'bilinear': cv2.INTER_LINEAR, 'bicubic': cv2.INTER_CUBIC}
_Box = tuple[float, float, float, float]  # left, top, right, bottom


class BadImageError(ValueError):
    """A file that cannot be decoded; the message says why."""


_ERRORS = (tf.errors.InvalidArgumentError, BadImageError)


class DecodeSpec(NamedTuple):
    """Options of decoding and cropping.

    Attributes:
      dataset: `config.dataset`; reads `image_size`, the limits, and the options of `crop`.
      crop: 'resized' and 'padded' are random, 'center' and 'whole' are not.
      seed: of the random crops and their augmentation.
      num_examples: size of the split; for 'padded' only.
    """

    dataset: ConfigDict
    crop: str
    seed: int = 0
    num_examples: int = 0


def decode(
    files: Sequence[bytes], keys: np.ndarray, out: np.ndarray, spec: DecodeSpec
) -> dict[int, str]:
    """Decodes, crops and augments files into `out`; each row depends only on its file and key.

    For 'resized', JPEGs are decoded inside the crop only, with the fast integer DCT and without
    smoothing the color planes. A crop of at least twice the size of `out` is decoded at half (a
    quarter, an eighth) of its size, from the low frequencies of the DCT, which antialiases it.
    All else is decoded exactly.

    Args:
      files: JPEG or PNG whatever their names say; gray, CMYK and palettes become RGB.
      keys: int64 [n, 2], epoch and number of each example; with `spec.seed` they determine
        the random crops and their augmentation.
      out: uint8 [n, size, size, 3], written; black where a file cannot be decoded.
      spec: the crop and its options.

    Returns:
      {row: reason} for files that cannot be decoded or exceed a limit.
    """
    draws = draw(keys, spec)
    bad: dict[int, str] = {}
    for rows in jpeg.groups(len(files)):
        if spec.crop == 'resized' and _decode_together(files[rows], draws[rows], out[rows], spec):
            continue
        for row in range(rows.start, rows.stop):
            try:
                if spec.crop == 'resized' and files[row].startswith(_JPEG):
                    one = slice(row, row + 1)
                    _decode_windows(files[one], draws[one], out[one], spec)
                else:
                    crop(decode_image(files[row], spec.dataset), draws[row], out[row], spec)
            except _ERRORS as error:
                out[row] = 0
                bad[row] = _reason(error)
    if spec.crop in ('resized', 'padded'):
        augment(out, keys, spec.dataset, spec.seed, skip=bad)
    return bad


def decode_whole(
    files: Sequence[bytes], dataset: ConfigDict
) -> tuple[list[np.ndarray], dict[int, str]]:
    """Decodes files at their original sizes; returns images uint8 [H, W, 3] and {row: reason}.

    Files that cannot be decoded become one black pixel.
    """
    images, bad = [], {}
    for row, file in enumerate(files):
        try:
            images.append(decode_image(file, dataset))
        except _ERRORS as error:
            images.append(np.zeros((1, 1, 3), np.uint8))
            bad[row] = _reason(error)
    return images, bad


def decode_image(file: bytes, dataset: ConfigDict) -> np.ndarray:
    """Decodes a JPEG or PNG exactly; returns uint8 [H, W, 3], of 16 bits the upper 8.

    Raises:
      BadImageError, tf.errors.InvalidArgumentError: it cannot be decoded or exceeds a limit.
    """
    _check_bytes(file, dataset)
    if file.startswith(_JPEG):
        encoded = tf.constant(file)
        _check_pixels(tf.io.extract_jpeg_shape(encoded).numpy()[None, :2], dataset)
        return tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE').numpy()
    if not file:
        raise BadImageError('The file is empty.')
    if not file.startswith(_PNG):
        raise BadImageError(f'It is neither JPEG nor PNG: it begins with {file[:16]!r}.')
    width, height = np.frombuffer(file[16:24].ljust(8, b'\0'), '>u4')
    _check_pixels(np.array([[height, width]]), dataset)
    return tf.io.decode_png(file, channels=3).numpy()


def draw(keys: np.ndarray, spec: DecodeSpec) -> np.ndarray:
    """Draws the random crops of `keys` int64 [n, 2] (epoch, number); a pure function.

    Returns:
      'resized': uniforms in [0, 1), float32 [n, 23]: mirrored if below 0.5, then the 22 of
      `crop_windows`. 'padded': int64 [n, 3], (top, left, mirrored). Otherwise [n, 0].
    """
    if spec.crop == 'resized':
        seeds = np.stack([(spec.seed << 32) + keys[:, 0], keys[:, 1]], axis=1)
        return jpeg.uniforms(seeds)
    if spec.crop == 'padded':
        draws = draw_padded(keys, spec.seed, spec.num_examples, spec.dataset.crop_padding)
        draws[:, 2] &= spec.dataset.flip
        return draws
    return np.empty((len(keys), 0))


def crop(image: np.ndarray, draw: np.ndarray, out: np.ndarray, spec: DecodeSpec) -> None:
    """Crops a decoded image uint8 [H, W, 3] into `out` uint8 [size, size, 3]."""
    size = len(out)
    if spec.crop == 'resized':
        ((top, left, height, width),) = _windows(np.array([image.shape[:2]]), draw[None], spec)
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
    """Crops n padded images at `draws` [n, 3], (top, left, mirrored), into `out`."""
    size = out.shape[1]
    for image, (top, left, mirrored), square in zip(padded, draws.tolist(), out, strict=True):
        part = image[top : top + size, left : left + size]
        if mirrored:
            cv2.flip(part, 1, square)
        else:
            square[:] = part


def _decode_together(
    files: Sequence[bytes], draws: np.ndarray, out: np.ndarray, spec: DecodeSpec
) -> bool:
    """Decodes random resized crops in one call; returns False if any file needs another way."""
    if not all(file.startswith(_JPEG) for file in files):
        return False
    try:
        _decode_windows(files, draws, out, spec)
    except _ERRORS:
        return False
    return True


def _decode_windows(
    files: Sequence[bytes], draws: np.ndarray, out: np.ndarray, spec: DecodeSpec
) -> None:
    """Decodes and resizes random resized crops of JPEGs; raises if any cannot be decoded."""
    for file in files:
        _check_bytes(file, spec.dataset)
    encoded = tf.constant(files)
    sides = jpeg.sides(encoded)
    _check_pixels(sides, spec.dataset)
    windows = _windows(sides, draws, spec)
    times = np.clip(windows[:, 2:].min(axis=1) // out.shape[1], 1, 2**jpeg.MAX_HALVINGS)
    halvings = np.log2(times).astype(np.int32)
    windows >>= halvings[:, None]
    for i, part in enumerate(jpeg.decode_windows(encoded, windows, halvings)):
        _resize(part.numpy(), draws[i], out[i], spec.dataset)


def _windows(sides: np.ndarray, draws: np.ndarray, spec: DecodeSpec) -> np.ndarray:
    return crop_windows(sides, draws[:, 1:], spec.dataset.crop_area, spec.dataset.crop_aspect)


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
    if image.shape[:2] == (size, size):
        return image
    resized = tf.image.resize(image.astype(np.float32), (size, size), antialias=True)
    return np.clip(np.round(resized.numpy()), 0, 255).astype(np.uint8)


def _check_bytes(file: bytes, dataset: ConfigDict) -> None:
    most = dataset.max_image_bytes
    if len(file) > most:
        raise BadImageError(f'It has over {most:,} bytes, dataset.max_image_bytes.')


def _check_pixels(sides: np.ndarray, dataset: ConfigDict) -> None:
    pixels = sides.astype(np.int64).prod(axis=1)
    if pixels.max() > dataset.max_image_pixels or pixels.min() == 0:
        raise BadImageError(
            f'It has {pixels.max():,} pixels; dataset.max_image_pixels is '
            f'{dataset.max_image_pixels:,}.'
        )


def _reason(error: Exception) -> str:
    """The error on one line, without its place in TensorFlow's graph."""
    text = getattr(error, 'message', str(error)).partition('\n\t [[')[0]
    text = re.sub(r'\{\{.*?\}\}|\[Op:.*?\]', '', text.rpartition('\n\n')[2])
    return ' '.join(text.split())[:200]
