"""Crops of JPEGs against TensorFlow, with which the first runs trained."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.datasets import load_sample_images

from ssanet_jax.config import base
from ssanet_jax.data.decoding.jpeg_parts import decode_part, find_parts

KINDS = {
    'baseline': {},
    'full color': {'subsampling': 0},
    'half color': {'subsampling': 1},
    'progressive': {'progressive': True},
    'restarts': {'restart_marker_blocks': 3},
    'optimized': {'optimize': True, 'quality': 40},
}


def tensorflow(part):
    return tf.io.decode_and_crop_jpeg(
        part.file,
        part.window,
        channels=3,
        ratio=1 << part.halvings,
        fancy_upscaling=False,
        dct_method='INTEGER_FAST',
    ).numpy()


@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize('kind', KINDS)
def test_parts_of_jpegs_have_the_pixels_that_tensorflow_decodes(kind, mode):
    """At full size, and at a half, a quarter and an eighth of it."""
    rng = np.random.default_rng(0)
    photo = Image.fromarray(load_sample_images().images[0]).convert(mode)
    halvings = set()
    for size in (16, 32, 64, 128):
        left, top = rng.integers(0, 150, 2).tolist()
        buffer = io.BytesIO()
        photo.crop((left, top, left + 301, top + 227)).save(buffer, 'JPEG', **KINDS[kind])
        files = [buffer.getvalue()] * 6
        draws = rng.random((6, 22), np.float32)
        parts = find_parts(files, draws, size, base().dataset)
        assert len(parts) == 6
        for part in parts.values():
            halvings.add(part.halvings)
            np.testing.assert_array_equal(decode_part(part), tensorflow(part))
    assert halvings == {0, 1, 2, 3}
