import base64
import io

import numpy as np
from PIL import Image

from ssanet_jax.report.thumbnails import thumbnail
from tests.report.runs import random_images


def decoded(uri):
    head, _, data = uri.partition(',')
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f'data:image/{image.format.lower()};base64'
    return image


def test_a_small_image_is_unchanged():
    (image,) = random_images(1)
    np.testing.assert_array_equal(np.asarray(decoded(thumbnail(image))), image)


def test_a_large_image_is_reduced_and_keeps_its_colors():
    image = np.zeros((224, 224, 3), np.uint8)
    image[:, :112] = (200, 40, 90)
    uri = thumbnail(image)
    small = np.asarray(decoded(uri)).astype(int)
    assert small.shape == (112, 112, 3)
    assert np.abs(small[:, :50] - (200, 40, 90)).max() < 12
    assert np.abs(small[:, 62:]).max() < 12
    assert len(uri) < 8000
