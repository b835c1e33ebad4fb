"""What holds for every reader: `digits` is read from memory, `imagenet` is streamed."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from ssanet_jax import data
from ssanet_jax.data import Share
from ssanet_jax.data.digits import Digits


@pytest.fixture(params=['digits', 'imagenet'])
def config(request):
    return request.getfixturevalue(request.param)


def first(config, number, **kwargs):
    return list(itertools.islice(data.train_batches(config, **kwargs), number))


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for left, right in zip(actual, expected, strict=True):
        for name in ('image', 'label', 'mask'):
            np.testing.assert_array_equal(left[name], right[name])


def test_batches_are_of_the_stated_shapes_and_types(config):
    size = config.dataset.image_size
    for batch in (first(config, 1)[0], next(data.eval_batches(config, config.dataset.eval_split))):
        assert batch['image'].shape[1:] == (size, size, 3)
        assert (batch['image'].dtype, batch['label'].dtype, batch['mask'].dtype) == (
            np.uint8,
            np.int32,
            bool,
        )
    assert first(config, 1)[0]['image'].shape[0] == config.batch_size


@pytest.mark.parametrize('start', [1, 2, 3, 7])
def test_a_run_that_starts_at_step_k_reads_what_it_would_have_read(config, start):
    assert_equal(first(config, 3, start_step=start), first(config, start + 3)[start:])


def test_memory_starts_at_a_distant_step_at_once(digits):
    distant = first(digits, 2, start_step=10**9)
    assert_equal(first(digits, 1, start_step=10**9 + 1), distant[1:])


def test_another_seed_gives_another_order(config):
    original = first(config, 1)[0]
    config.seed = 1
    assert (first(config, 1)[0]['image'] != original['image']).any()


def test_epochs_differ_in_order_and_augmentation(config):
    steps = data.dataset_info(config).num_train // config.batch_size
    batches = first(config, 2 * steps + 2)
    assert (batches[0]['image'] != batches[steps + 1]['image']).any()
    assert (batches[0]['label'] != batches[steps + 1]['label']).any()


@pytest.fixture
def streamed_digits(digits, tmp_path, monkeypatch):
    """The digits in seven tfrecord files, streamed without augmentation."""
    digits.dataset.data_dir = str(tmp_path)
    Digits(data_dir=tmp_path).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=7)
    )
    digits.dataset.reader = 'stream'
    digits.dataset.shuffle_buffer = 50

    def plain(encoded, key, dataset):
        return tf.repeat(tf.io.decode_png(encoded, 1), 3, axis=-1)

    monkeypatch.setattr(data.stream, 'augment', plain)
    return digits


def all_digits(config):
    builder = data.builders.open_builder(config.dataset)
    return sorted(map(bytes, data.memory.load_split(builder, 'train', 8)[0]))


@pytest.mark.parametrize('hosts', [1, 3])
def test_every_streamed_example_comes_once_an_epoch_and_host(streamed_digits, hosts):
    """1,437 = 3 x 479: with three hosts each epoch is one step, with one host three."""
    streamed_digits.batch_size = 1437 // 3 * hosts
    steps = 3 // hosts
    epochs = []
    for epoch in (0, 1):
        images = [
            bytes(image)
            for host in range(hosts)
            for batch in first(
                streamed_digits, steps, start_step=epoch * steps, share=Share(host, hosts)
            )
            for image in batch['image']
        ]
        assert sorted(images) == all_digits(streamed_digits)
        epochs.append(images)
    assert epochs[0] != epochs[1]


def test_slices_of_a_split_cross_files(streamed_digits):
    streamed_digits.dataset.train_split = 'train[100:1300]'
    streamed_digits.batch_size = 1200
    builder = data.builders.open_builder(streamed_digits.dataset)
    whole, _ = data.memory.load_split(builder, 'train[100:1300]', 8)
    (batch,) = first(streamed_digits, 1)
    assert sorted(map(bytes, batch['image'])) == sorted(map(bytes, whole))


def test_every_example_comes_once_an_epoch(digits):
    config = digits
    config.dataset.flip, config.dataset.crop_padding = False, 0
    config.batch_size = 479  # three steps an epoch
    for epoch in (0, 1):
        images = np.concatenate([b['image'] for b in first(config, 3, start_step=3 * epoch)])
        assert sorted(map(bytes, images)) == all_digits(config)


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_a_batch_of_a_memory_set(digits, hosts):
    whole = first(digits, 3)
    parts = [first(digits, 3, share=Share(host, hosts)) for host in range(hosts)]
    for step, batch in enumerate(whole):
        for name in batch:
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])


def eval_rows(config, share):
    batches = list(data.eval_batches(config, config.dataset.eval_split, share=share))
    rows = [
        (bytes(image), int(label))
        for batch in batches
        for image, label, real in zip(batch['image'], batch['label'], batch['mask'], strict=True)
        if real
    ]
    return rows, {batch['image'].shape for batch in batches}, len(batches)


@pytest.mark.parametrize('hosts', [1, 2, 3, 4])
@pytest.mark.parametrize('batch_size', [7, 64, 1000])
def test_evaluation_reads_every_example_once(config, batch_size, hosts):
    config.eval_batch_size = batch_size
    whole, _, _ = eval_rows(config, Share(0, 1))
    assert len(whole) == data.dataset_info(config).num_eval
    parts = [eval_rows(config, Share(host, hosts)) for host in range(hosts)]
    assert sorted(row for rows, _, _ in parts for row in rows) == sorted(whole)
    assert len({(tuple(shapes), number) for _, shapes, number in parts}) == 1  # hosts in step
    (shape,) = parts[0][1]
    assert shape[0] % 8 == 0  # local devices
