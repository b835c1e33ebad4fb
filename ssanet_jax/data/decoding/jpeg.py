"""JPEGs decoded many at a time: one call of TensorFlow, on all cores, without Python's lock.

TensorFlow traces a program for each number of files; `groups` keeps these few. A file that
cannot be decoded makes the call for its group raise tf.errors.InvalidArgumentError.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from ssanet_jax.data.decoding.crops import ATTEMPTS

GROUP = 64  # files per call, at most
MAX_HALVINGS = 3  # of the resolution; libjpeg's limit

_UNIFORMS = 3 + 2 * ATTEMPTS  # per random resized crop: mirrored, top, left, areas, aspects


def groups(total: int) -> Iterator[slice]:
    """Cuts range(total) into pieces of 64, 32, ..., 1."""
    start = 0
    while start < total:
        stop = start + min(GROUP, 1 << (total - start).bit_length() - 1)
        yield slice(start, stop)
        start = stop


def uniforms(seeds: np.ndarray) -> np.ndarray:
    """Draws float32 [n, 23] in [0, 1) from int64 seeds [n, 2], for any n."""
    parts = (seeds[rows] for rows in groups(len(seeds)))
    return np.concatenate([_uniforms(len(part))(part).numpy() for part in parts])


def sides(files: tf.Tensor) -> np.ndarray:
    """Reads the heights and widths int32 [n, 2] of `files` [n]."""
    return _sides(len(files))(files).numpy()


def decode_windows(files: tf.Tensor, windows: np.ndarray, halvings: np.ndarray) -> list[tf.Tensor]:
    """Decodes a part of each file, at full size or less; returns n crops of different sizes.

    The integer DCT is the fast one, and the color planes are not smoothed.

    Args:
      files: [n].
      windows: int32 [n, 4], (top, left, height, width) in pixels of the reduced image.
      halvings: int32 [n], how many times each image is halved, 0 to 3.
    """
    return _windows(len(files))(files, windows, halvings)


def _compiled(n: int, *others: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
    return tf.function(input_signature=(tf.TensorSpec((n,), tf.string), *others), autograph=False)


@functools.lru_cache
def _uniforms(n: int) -> Callable[[np.ndarray], tf.Tensor]:
    # One operation per seed; tf.random.stateless_uniform takes three.
    def draw(seeds: tf.Tensor) -> tf.Tensor:
        shape = (_UNIFORMS,)
        return tf.stack(
            [tf.raw_ops.StatelessRandomUniform(shape=shape, seed=s) for s in tf.unstack(seeds)]
        )

    return tf.function(draw, input_signature=[tf.TensorSpec((n, 2), tf.int64)], autograph=False)


@functools.lru_cache
def _sides(n: int) -> Callable[[tf.Tensor], tf.Tensor]:
    @_compiled(n)
    def read(files: tf.Tensor) -> tf.Tensor:
        return tf.stack([tf.io.extract_jpeg_shape(file)[:2] for file in tf.unstack(files)])

    return read


@functools.lru_cache
def _windows(n: int) -> Callable[..., list[tf.Tensor]]:
    @tf.function(autograph=False)  # traced once, not n times
    def window(file: tf.Tensor, place: tf.Tensor, halvings: tf.Tensor) -> tf.Tensor:
        def at(ratio: int) -> Callable[[], tf.Tensor]:
            return lambda: tf.io.decode_and_crop_jpeg(
                file,
                place,
                channels=3,
                ratio=ratio,
                fancy_upscaling=False,
                dct_method='INTEGER_FAST',
            )

        return tf.switch_case(halvings, [at(1), at(2), at(4), at(8)])

    @_compiled(n, tf.TensorSpec((n, 4), tf.int32), tf.TensorSpec((n,), tf.int32))
    def decode(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return [window(*of_one) for of_one in zip(*map(tf.unstack, arguments), strict=True)]

    return decode
