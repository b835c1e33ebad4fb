"""What decoding has for any crop: limits, PNG, and files that are neither."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from ssanet_jax.data import jpeg

# (n files, key int64 [n, 2], out uint8 [n, size, size, 3]) to what went wrong: the reason for
# each row that could not be decoded, which is left black.
Decode = Callable[[Sequence[bytes], np.ndarray, np.ndarray], dict[int, str]]

_JPEG = b'\xff\xd8\xff'
_PNG = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'  # the sides follow; behind another chunk they would not


class BadImageError(ValueError):
    """A file that no image can be decoded from; the message says why."""


def in_groups(
    files: Sequence[bytes],
    out: np.ndarray,
    dataset: ConfigDict,
    decode: Callable[[slice], None],
    decode_png: Callable[[int], Any],
) -> dict[int, str]:
    """Decodes rows many at a time, and one at a time where one of them is odd."""
    bad: dict[int, str] = {}
    most = dataset.max_image_bytes
    is_jpeg = [file.startswith(_JPEG) for file in files]
    small = [len(file) <= most for file in files]
    start = 0
    while start < len(out):
        stop = start + min(jpeg.GROUP, 1 << (len(out) - start).bit_length() - 1)  # few sizes
        try:
            if not all(is_jpeg[start:stop] + small[start:stop]):
                raise BadImageError('Some are not JPEG, or too large.')
            decode(slice(start, stop))
        except (tf.errors.InvalidArgumentError, BadImageError):
            for row in range(start, stop):
                try:
                    if not small[row]:
                        raise BadImageError(f'It has over {most:,} bytes, dataset.max_image_bytes.')
                    if is_jpeg[row]:
                        decode(slice(row, row + 1))
                    else:
                        decode_png(row)
                except (tf.errors.InvalidArgumentError, BadImageError) as error:
                    out[row] = 0
                    bad[row] = _reason(error)
        start = stop
    return bad


def _reason(error: Exception) -> str:
    """One line, without TensorFlow's account of where in its graph that was."""
    text = getattr(error, 'message', str(error)).partition('\n\t [[')[0]
    text = re.sub(r'\{\{.*?\}\}|\[Op:.*?\]', '', text.rpartition('\n\n')[2])
    return ' '.join(text.split())[:200]


def decode_png(file: bytes, dataset: ConfigDict) -> np.ndarray:
    """What is not a JPEG; a few of ImageNet's .JPEG are such. 16 bits become 8."""
    if not file:
        raise BadImageError('The file is empty.')
    if not file.startswith(_PNG):
        raise BadImageError(f'It is neither JPEG nor PNG: it begins with {file[:16]!r}.')
    width, height = np.frombuffer(file[16:24].ljust(8, b'\0'), '>u4').astype(np.int64)
    check_pixels(np.array([[height, width]]), dataset)
    return tf.io.decode_png(file, channels=3).numpy()


def check_pixels(sides: np.ndarray, dataset: ConfigDict) -> None:
    pixels = sides.astype(np.int64).prod(axis=1)
    if pixels.max() > dataset.max_image_pixels or pixels.min() == 0:
        raise BadImageError(
            f'It has {pixels.max():,} pixels; dataset.max_image_pixels is '
            f'{dataset.max_image_pixels:,}.'
        )


def fit(image: tf.Tensor, size: int) -> tf.Tensor:
    """A uint8 image [H, W, 1 or 3] as [size, size, 3], resized bilinearly and antialiased."""
    if image.shape[:2] != (size, size):
        image = tf.image.resize(tf.cast(image, tf.float32), (size, size), antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(image), 0, 255), tf.uint8)
    return tf.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
