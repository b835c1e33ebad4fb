"""What holds for every reader: `digits` is read from memory, `imagenet` is streamed."""

import itertools

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.data import Share


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


def unaugmented(config):
    """Each example's identity, its label and content, stays visible in its training image."""
    config.dataset.flip = False
    if config.dataset.reader == 'memory':
        config.dataset.crop_padding = 0
    else:
        config.dataset.crop_area = (1.0, 1.0)
        config.dataset.crop_aspect = (0.2, 5.0)
    return config


def test_every_example_comes_once_an_epoch(digits):
    config = unaugmented(digits)
    config.batch_size = 479  # three steps an epoch
    for epoch in (0, 1):
        images = np.concatenate([b['image'] for b in first(config, 3, start_step=3 * epoch)])
        expected = data.memory.load_split(
            data.builders.open_builder(config.dataset), 'train', config.dataset.image_size
        )[0]
        assert sorted(map(bytes, images)) == sorted(map(bytes, expected))


def test_every_label_comes_once_an_epoch_when_streamed(imagenet):
    labels = np.concatenate([b['label'] for b in first(imagenet, 6)])  # 48 images in 3 steps
    for epoch in (labels[:48], labels[48:]):
        assert sorted(np.unique(epoch, return_counts=True)[1]) == [12] * 4


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_a_batch_of_a_memory_set(digits, hosts):
    whole = first(digits, 3)
    parts = [first(digits, 3, share=Share(host, hosts)) for host in range(hosts)]
    for step, batch in enumerate(whole):
        for name in batch:
            joined = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(joined, batch[name])


@pytest.mark.parametrize('hosts', [2, 4])
def test_hosts_share_an_epoch_of_a_streamed_set(imagenet, hosts):
    parts = [first(imagenet, 3, share=Share(host, hosts)) for host in range(hosts)]
    labels = np.concatenate([batch['label'] for part in parts for batch in part])
    assert sorted(np.unique(labels, return_counts=True)[1]) == [12] * 4


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
