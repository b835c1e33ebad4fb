"""TensorFlow's part of decoding, as functions of n files.

Each is one call, in which n JPEGs are worked on by all cores, without Python's lock. One that
cannot be decoded makes the whole call raise tf.errors.InvalidArgumentError.
"""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ssanet_jax.data.crops import ATTEMPTS

GROUP = 64  # files of one call, at the most

_UNIFORMS = 3 + 2 * ATTEMPTS  # that one random crop needs


@functools.lru_cache
def draw(n: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]]:
    """(files, keys [n, 2]) to height and width int32 [n, 2] and uniforms float32 [n, 23]."""

    @_compiled(n, tf.TensorSpec((n, 2), tf.int64))
    def sides_and_uniforms(files: tf.Tensor, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _sides_of(files), tf.stack([uniforms(key) for key in tf.unstack(keys)])

    return sides_and_uniforms


@functools.lru_cache
def sides(n: int) -> Callable[[tf.Tensor], tf.Tensor]:
    return _compiled(n)(_sides_of)


@functools.lru_cache
def decode_windows(n: int) -> Callable[..., list[tf.Tensor]]:
    """(files, windows int32 [n, 4], halvings int32 [n]) to n crops of different sizes."""

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
    def windows(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return [window(*of_one) for of_one in zip(*map(tf.unstack, arguments), strict=True)]

    return windows


@functools.lru_cache
def decode_whole(n: int) -> Callable[[tf.Tensor], list[tf.Tensor]]:
    @_compiled(n)
    def whole(files: tf.Tensor) -> list[tf.Tensor]:
        return [
            tf.io.decode_jpeg(file, channels=3, dct_method='INTEGER_ACCURATE')
            for file in tf.unstack(files)
        ]

    return whole


def _compiled(n: int, *others: tf.TensorSpec) -> Callable[[Callable[..., Any]], Any]:
    return tf.function(input_signature=(tf.TensorSpec((n,), tf.string), *others), autograph=False)


def uniforms(key: tf.Tensor) -> tf.Tensor:
    """float32 [23] in [0, 1). tf.random.stateless_uniform takes three operations for it."""
    return tf.raw_ops.StatelessRandomUniform(shape=(_UNIFORMS,), seed=key)


def _sides_of(files: tf.Tensor) -> tf.Tensor:
    return tf.stack([tf.io.extract_jpeg_shape(file)[:2] for file in tf.unstack(files)])
