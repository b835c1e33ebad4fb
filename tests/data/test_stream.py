import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ssanet_jax import data
from ssanet_jax.config import ConfigError
from ssanet_jax.data import stream
from tests import fabricate


@pytest.fixture
def dataset(imagenet):
    return imagenet.dataset


def pil(encoded):
    return Image.open(io.BytesIO(encoded)).convert('RGB')


def test_center_crop_is_pils_antialiased_resize_and_crop(dataset):
    dataset.image_size, dataset.eval_crop_fraction = 56, 0.875
    rng = np.random.default_rng(0)
    for _ in range(5):
        encoded = fabricate.photograph(rng)
        image = pil(encoded)
        scale = 64 / min(image.size)
        image = image.resize(
            [round(side * scale) for side in image.size], Image.Resampling.BILINEAR
        )
        left, top = (image.width - 56) // 2, (image.height - 56) // 2
        expected = np.asarray(image.crop((left, top, left + 56, top + 56)), int)
        found = stream.center_crop(tf.constant(encoded), dataset).numpy().astype(int)
        assert np.abs(found - expected).mean() < 1


def test_a_full_crop_is_pils_antialiased_resize(dataset):
    dataset.flip, dataset.crop_area, dataset.crop_aspect = False, (1.0, 1.0), (0.2, 5.0)
    encoded = fabricate.photograph(np.random.default_rng(1))
    expected = np.asarray(pil(encoded).resize((32, 32), Image.Resampling.BILINEAR), int)
    found = [
        stream.augment(tf.constant(encoded), tf.constant([0, k], tf.int64), dataset)
        .numpy()
        .astype(int)
        for k in range(20)
    ]
    assert min(np.abs(image - expected).mean() for image in found) < 1.5


@pytest.mark.parametrize('odd', [{'kind': 'PNG'}, {'mode': 'CMYK'}, {'mode': 'L'}], ids=str)
def test_odd_files_become_rgb(dataset, odd):
    encoded = fabricate.photograph(np.random.default_rng(0), **odd)
    key = tf.constant([0, 0], tf.int64)
    assert stream.augment(tf.constant(encoded), key, dataset).shape == (32, 32, 3)
    found = stream.center_crop(tf.constant(encoded), dataset).numpy().astype(float)
    expected = np.asarray(pil(encoded).resize((32, 32), Image.Resampling.BILINEAR), float)
    assert np.corrcoef(found.mean(axis=2).ravel(), expected.mean(axis=2).ravel())[0, 1] > 0.5


def test_augmentation_depends_on_its_key_alone(dataset):
    encoded = tf.constant(fabricate.photograph(np.random.default_rng(0)))
    keys = [tf.constant(key, tf.int64) for key in ([0, 0], [0, 0], [0, 1], [1, 0])]
    one, same, place, seed = (stream.augment(encoded, key, dataset).numpy() for key in keys)
    np.testing.assert_array_equal(one, same)
    assert (one != place).any()
    assert (one != seed).any()


def test_half_of_the_images_are_mirrored(dataset):
    dataset.crop_area, dataset.crop_aspect = (1.0, 1.0), (0.99, 1.01)
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'PNG')
    encoded = tf.constant(buffer.getvalue())
    keys = tf.stack([tf.zeros(400, tf.int64), tf.range(400, dtype=tf.int64)], axis=1)
    images = tf.map_fn(lambda key: stream.augment(encoded, key, dataset), keys, tf.uint8).numpy()
    mirrored = (images[:, :, :8].mean(axis=(1, 2, 3)) > 128).mean()
    assert 0.4 < mirrored < 0.6


def test_other_file_formats_are_refused_with_the_remedy(imagenet, monkeypatch):
    builder = data.builders.open_builder(imagenet.dataset)
    monkeypatch.setattr(type(builder.info), 'file_format', stream.tfds.core.FileFormat.ARRAY_RECORD)
    with pytest.raises(ConfigError, match='--file_format=tfrecord'):
        next(data.train_batches(imagenet))


def test_slices_of_a_split_are_read(imagenet):
    imagenet.dataset.eval_split = 'validation[5:9]'
    (batch,) = data.eval_batches(imagenet, 'validation[5:9]')
    imagenet.dataset.eval_split = 'validation'
    whole = np.concatenate([b['image'] for b in data.eval_batches(imagenet, 'validation')])
    np.testing.assert_array_equal(batch['image'][:4], whole[5:9])
    assert batch['mask'].sum() == 4
