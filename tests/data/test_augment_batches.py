"""Augmented batches are a function of (seed, epoch, example), and repeats come as they should."""

import itertools
import json

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.config import base
from ssanet_jax.config.validation import check
from ssanet_jax.data import HostShard, sources
from ssanet_jax.data.augmentation import augment
from ssanet_jax.data.sources import training_examples
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import show_batch
from tests import stored_digits
from tests.golden import rule
from tests.helpers import ROOT, run_tool

EVERYTHING = {
    'augment': 'rand-m7-mstd0.5-inc1',
    'color_jitter': (0.4, 0.4, 0.4, 0.1),
    'random_erasing': 0.5,
    'cutout': 4,
}


def first(config, number, **kwargs):
    return [b['image'] for b in itertools.islice(data.train_batches(config, **kwargs), number)]


@pytest.fixture(params=['digits', 'imagenet'])
def config(request):
    """The digits from memory, and array_record files, with everything on."""
    config = request.getfixturevalue(request.param)
    config.dataset.update(EVERYTHING, repeats=3)
    config.batch_size = 16
    return config


@pytest.fixture(scope='module')
def digits_tfrecord(tmp_path_factory):
    """The digits in three tfrecord files."""
    return stored_digits.prepare(tmp_path_factory.mktemp('digits'), 'tfrecord', 3)


@pytest.mark.parametrize('policy', ['trivial_wide', 'rand-m7-mstd0.5-inc1'])
def test_an_image_and_its_key_determine_its_pixels(policy):
    """In batches of any order and size; and keys, epochs and seeds give different ones."""
    dataset = base().dataset
    dataset.update(EVERYTHING, augment=policy)
    images = np.stack([rule.pictures()[0]] * 8)
    keys = np.array(list(itertools.product((0, 1), (3, 4, 5, 2**40))))
    whole, order = images.copy(), np.array([6, 1, 7])
    augment(whole, keys, dataset, 5)
    part = images[:3].copy()
    augment(part, keys[order], dataset, 5)
    np.testing.assert_array_equal(part, whole[order])
    other = images.copy()
    augment(other, keys, dataset, 6)
    assert len({image.tobytes() for image in (*whole, *other)}) == 16


def test_nothing_is_done_or_drawn_when_all_is_off():
    augment(None, None, base().dataset, 0)


@pytest.mark.parametrize('field', EVERYTHING)
def test_each_field_has_an_effect_of_its_own(field):
    dataset = base().dataset
    dataset[field] = EVERYTHING[field]
    images = np.stack([rule.pictures()[0]] * 8)
    before = images.copy()
    augment(images, np.stack([np.arange(8)] * 2, axis=1), dataset, 0)
    assert (images != before).any()


def test_skipped_rows_stay_as_they_are():
    dataset = base().dataset
    dataset.update(EVERYTHING)
    images = np.zeros((3, 32, 32, 3), np.uint8)
    augment(images, np.zeros((3, 2), int), dataset, 0, skip={1: 'bad'})
    assert not images[1].any()
    assert images[0].any()
    np.testing.assert_array_equal(images[0], images[2])


def test_erased_pixels_have_the_mean_color():
    """Which normalization turns into 0, with which both libraries erase."""
    dataset = base().dataset
    dataset.cutout = 16
    images = np.zeros((1, 32, 32, 3), np.uint8)
    augment(images, np.zeros((1, 2), int), dataset, 0)
    erased = images[images.any(axis=-1)]
    normalized = (erased / 255 - np.array(dataset.mean)) / np.array(dataset.std)
    assert len(erased) >= 64
    assert np.abs(normalized).max() < 0.5 / 255 / min(dataset.std) + 1e-6


def test_augmented_batches_are_the_same_after_a_restart_and_on_more_hosts(config):
    whole = first(config, 4)
    np.testing.assert_array_equal(first(config, 1, start_step=3), whole[3:])
    halves = [first(config, 2, shard=HostShard(host, 2)) for host in range(2)]
    for together, *parts in zip(whole, *halves, strict=False):
        np.testing.assert_array_equal(np.concatenate(parts), together)
    config.dataset.num_threads = 1
    np.testing.assert_array_equal(first(config, 2), whole[:2])


def test_evaluation_is_not_augmented(config):
    augmented = next(data.eval_batches(config, config.dataset.eval_split))['image']
    config.dataset.update(augment='none', color_jitter=(0.0,) * 4, random_erasing=0.0, cutout=0)
    plain = next(data.eval_batches(config, config.dataset.eval_split))['image']
    np.testing.assert_array_equal(augmented, plain)


def test_repeats_come_in_the_batches_of_timms_sampler(monkeypatch):
    """Four devices with five images each; the order inside a batch is another."""
    monkeypatch.setattr(sources, 'shuffled', lambda place, *_: place)
    golden = json.loads((ROOT / 'tests/golden/augmentation.json').read_text())['repeated_places']
    number, epoch = training_examples(
        np.arange(200), size=100, seed=0, batch_size=20, shard=HostShard(0, 1), repeats=3
    )
    for step in range(5):
        expected = np.array(golden)[:, 5 * step : 5 * step + 5]
        rows = slice(20 * step, 20 * step + 20)
        np.testing.assert_array_equal(np.sort(number[rows]), np.sort(expected, axis=None))
    assert set(epoch[:100]) == {0, 1, 2}
    assert set(epoch[100:]) == {3, 4, 5}
    assert len(set(zip(number, epoch, strict=True))) == 200


@pytest.mark.parametrize('repeats', [2, 3])
def test_repeats_of_a_batch_are_on_different_devices(repeats):
    number, _ = training_examples(
        np.arange(48), size=960, seed=0, batch_size=48, shard=HostShard(0, 1), repeats=repeats
    )
    for device in number.reshape(repeats, -1):
        assert len(set(device)) == 48 // repeats


@pytest.mark.parametrize('storage', ['memory', 'tfrecord'])
def test_each_example_comes_as_often_as_asked_with_different_crops(
    storage, digits, digits_tfrecord
):
    """120 = 3 x 40: an epoch of three steps has a third of the digits.

    With 9 places, the three crops of a digit are 9 * (1 - (8/9)**3) = 2.68 different ones.
    """
    if storage == 'tfrecord':
        stored_digits.use(digits, digits_tfrecord)
        digits.dataset.in_memory = False
    digits.dataset.train_split = 'train[:120]'
    digits.batch_size, digits.dataset.repeats = 40, 3
    digits.dataset.update(crop_padding=1, flip=False)
    padded = first(digits, 5)
    np.testing.assert_array_equal(first(digits, 3, start_step=2), padded[2:])
    crops = np.concatenate(padded[:3]).reshape(120, -1)
    assert abs(len(np.unique(crops, axis=0)) / 40 - 2.68) < 0.25

    digits.dataset.crop_padding = 0
    plain = first(digits, 3)
    images = np.concatenate(plain).reshape(120, -1)
    assert set(np.unique(images, axis=0, return_counts=True)[1] % 3) == {0}
    for batch in plain:
        thirds = [{image.tobytes() for image in part} for part in np.array_split(batch, 3)]
        assert len(thirds[0] & thirds[1] & thirds[2]) >= 12


@pytest.mark.parametrize(
    ('field', 'value', 'message'),
    [
        ('augment', 'rand-m11-mstd0.5-inc1', 'magnitude m of 0 to 10'),
        ('augment', 'rand-m7-mstd0.5-inc0', 'out of range'),
        ('augment', 'RandAugment', 'out of range'),
        ('color_jitter', (0.4, 0.4, 0.4), 'four numbers from 0 to 1'),
        ('cutout', 224, 'erases whole crops; choose less than config.dataset.image_size=224'),
    ],
)
def test_values_without_meaning_are_refused_in_one_line(field, value, message):
    config = base()
    config.dataset[field] = value
    with pytest.raises(ConfigError, match=message) as error:
        check(config)
    assert '\n' not in str(error.value)


def test_show_batch_shows_augmented_images(digits, monkeypatch):
    shown = []
    monkeypatch.setattr(show_batch, 'draw', lambda images, *_: shown.append(images))
    flags = ['--config=configs/digits_ssa20.py', '--out=unused.png']
    flags.append(f'--config.dataset.data_dir={digits.dataset.data_dir}')
    run_tool(show_batch, *flags)
    run_tool(show_batch, *flags, '--config.dataset.cutout=4')
    assert (shown[0] != shown[1]).any()
