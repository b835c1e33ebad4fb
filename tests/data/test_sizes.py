"""Sizes of training images by epoch, and of evaluation apart from them."""

import itertools

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.config import base, make_plan
from ssanet_jax.config.sizes import eval_size, train_size, train_sizes
from ssanet_jax.data import HostShard


def ffcv(epoch, lowest, highest, end, start, multiple=32):
    """The rule of ffcv's ImageNet example, by whole epochs."""
    if epoch <= start:
        return lowest
    if epoch >= end:
        return highest
    exact = lowest + (highest - lowest) * (epoch - start) / (end - start)
    return int(np.round(exact / multiple)) * multiple


@pytest.mark.parametrize(
    ('epochs', 'lowest', 'highest', 'start', 'end'),
    [(16, 160, 192, 11, 13), (88, 160, 192, 65, 76), (18, 96, 224, 3, 16), (90, 128, 224, 0, 89)],
)
def test_sizes_are_those_of_ffcv(epochs, lowest, highest, start, end):
    dataset = base().dataset
    dataset.initial_size, dataset.image_size = lowest, highest
    dataset.growth_epochs = (float(start), float(end))
    found = [train_size(dataset, epoch) for epoch in range(epochs)]
    assert found == [ffcv(epoch, lowest, highest, end, start) for epoch in range(epochs)]


def test_rounded_sizes_stay_between_the_first_and_the_last():
    dataset = base().dataset
    dataset.initial_size, dataset.image_size, dataset.growth_epochs = 40, 60, (0.0, 6.0)
    assert [train_size(dataset, epoch) for epoch in range(8)] == [40, 40, 40, 60, 60, 60, 60, 60]


def test_all_sizes_are_the_same_by_default():
    dataset = base().dataset
    assert eval_size(dataset) == train_size(dataset, 0) == train_size(dataset, 89) == 224
    dataset.eval_size = 288
    assert (eval_size(dataset), train_size(dataset, 0)) == (288, 224)


def test_the_sizes_of_a_run_are_those_of_its_remaining_steps():
    config = base()
    config.batch_size, config.num_train_steps = 8, 25
    config.dataset.initial_size, config.dataset.image_size = 160, 224
    config.dataset.growth_epochs = (0.0, 4.0)
    plan = make_plan(config, num_train_examples=36)  # 4.5 steps an epoch
    by_step = [train_size(config.dataset, step * 8 // 36) for step in range(25)]
    for start in (0, 4, 5, 10, 24, 25):
        expected = list(dict.fromkeys(by_step[start:])) or [224]
        assert train_sizes(config.dataset, plan, start) == expected


@pytest.fixture(params=['memory', 'disk', 'imagenet', 'imagenet_tfrecord'])
def growing(request, data_dir):
    """Batches of 16 images of 8, then 10, then 12 pixels, in epochs of 48 images."""
    name = request.param
    config = request.getfixturevalue(name if name.startswith('imagenet') else 'digits')
    config.batch_size = 16
    dataset = config.dataset
    if not name.startswith('imagenet'):
        dataset.train_split, dataset.in_memory = 'train[:48]', name == 'memory'
        dataset.train_crop = 'resized'
    dataset.image_size, dataset.initial_size, dataset.growth_multiple = 12, 8, 2
    dataset.growth_epochs = (0.0, 2.0)
    return config


def first(config, number, **kwargs):
    return list(itertools.islice(data.train_batches(config, **kwargs), number))


def test_batches_grow_with_the_epoch_and_resume_at_any_step(growing):
    whole = first(growing, 8)
    sides = [batch['image'].shape[1:3] for batch in whole]
    assert sides == [(8, 8)] * 3 + [(10, 10)] * 3 + [(12, 12)] * 2
    for start in (2, 3, 5):
        resumed = first(growing, 2, start_step=start)
        for batch, expected in zip(resumed, whole[start : start + 2], strict=True):
            np.testing.assert_array_equal(batch['image'], expected['image'])
            np.testing.assert_array_equal(batch['label'], expected['label'])


def test_images_are_those_of_a_run_of_one_size(growing):
    """The crops are the same, resized to another size."""
    whole = first(growing, 7)
    growing.dataset.initial_size, growing.dataset.image_size = -1, 10
    for step in (3, 5):
        (batch,) = first(growing, 1, start_step=step)
        np.testing.assert_array_equal(batch['image'], whole[step]['image'])


def test_hosts_have_parts_of_one_size(growing):
    if growing.dataset.shuffle_buffer != base().dataset.shuffle_buffer:
        pytest.skip('the order of tfrecord files depends on the number of hosts')
    for step in (2, 3):
        parts = [first(growing, 1, start_step=step, shard=HostShard(h, 2))[0] for h in range(2)]
        assert parts[0]['image'].shape == parts[1]['image'].shape


@pytest.mark.parametrize('name', ['digits', 'imagenet'])
def test_evaluation_and_training_differ_in_size(name, request):
    """Evaluation is that of a run whose image_size is eval_size."""
    config = request.getfixturevalue(name)
    config.dataset.image_size, config.dataset.eval_size = 12, 16
    assert first(config, 1)[0]['image'].shape[1:3] == (12, 12)
    split = config.dataset.eval_split
    found = next(data.eval_batches(config, split))
    config.dataset.image_size, config.dataset.eval_size = 16, -1
    expected = next(data.eval_batches(config, split))
    for field in expected:
        np.testing.assert_array_equal(found[field], expected[field])
