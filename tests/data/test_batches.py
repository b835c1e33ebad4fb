"""What holds for every reader: sets in memory, array_record files, tfrecord files."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from ssanet_jax.data.digits import Digits

from ssanet_jax import data
from ssanet_jax.data import HostShard
from tests.helpers import ROOT


@pytest.fixture(params=['digits', 'imagenet', 'imagenet_tfrecord'])
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


@pytest.mark.parametrize('name', ['digits', 'imagenet'])
def test_a_distant_step_starts_at_once(name, request):
    config = request.getfixturevalue(name)
    distant = first(config, 2, start_step=10**9)
    assert_equal(first(config, 1, start_step=10**9 + 1), distant[1:])


def test_another_seed_gives_another_order(config):
    original = first(config, 1)[0]
    config.seed = 1
    assert (first(config, 1)[0]['image'] != original['image']).any()


def test_epochs_differ_in_order_and_augmentation(config):
    steps = data.dataset_info(config).num_train // config.batch_size
    batches = first(config, 2 * steps + 2)
    assert (batches[0]['image'] != batches[steps + 1]['image']).any()
    assert (batches[0]['label'] != batches[steps + 1]['label']).any()


def on_disk(config, folder, file_format):
    """The digits in seven files, read from disk without augmentation."""
    config.dataset.data_dir = str(folder)
    Digits(data_dir=folder, file_format=file_format).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=7)
    )
    config.dataset.reader = 'disk'
    config.dataset.crop_area = config.dataset.crop_aspect = (1.0, 1.0)
    config.dataset.shuffle_buffer = 50
    return config


@pytest.fixture(params=['memory', 'array_record', 'tfrecord'])
def plain_digits(request, digits, tmp_path):
    """The digits as they are, in each of the three ways."""
    digits.dataset.flip, digits.dataset.crop_padding = False, 0
    return digits if request.param == 'memory' else on_disk(digits, tmp_path, request.param)


def all_digits():
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    train, _ = train_test_split(
        images, test_size=360, stratify=load_digits().target, random_state=0
    )
    return sorted(bytes(np.repeat(image[..., None], 3, axis=-1)) for image in train)


@pytest.mark.parametrize('hosts', [1, 3])
def test_every_example_comes_once_an_epoch(plain_digits, hosts):
    """1,437 = 3 x 479: with three hosts each epoch is one step, with one host three."""
    plain_digits.batch_size = 1437 // 3 * hosts
    steps = 3 // hosts
    epochs = []
    for epoch in (0, 1):
        images = [
            bytes(image)
            for host in range(hosts)
            for batch in first(
                plain_digits, steps, start_step=epoch * steps, share=HostShard(host, hosts)
            )
            for image in batch['image']
        ]
        assert sorted(images) == all_digits()
        epochs.append(images)
    assert epochs[0] != epochs[1]


def test_slices_of_a_split_cross_files(plain_digits):
    plain_digits.dataset.train_split = 'train[100:1300]'
    plain_digits.batch_size = 1200
    builder = data.builders.open_builder(plain_digits.dataset)
    whole, _ = data.memory.load_split(builder, 'train[100:1300]', 8)
    (batch,) = first(plain_digits, 1)
    assert sorted(map(bytes, batch['image'])) == sorted(map(bytes, whole))


@pytest.mark.parametrize('hosts', [2, 4])
@pytest.mark.parametrize('start', [0, 5, 10**6])
@pytest.mark.parametrize('name', ['digits', 'imagenet'])
def test_hosts_share_the_batches_of_one_host(name, start, hosts, request):
    """Image for image, at any step."""
    config = request.getfixturevalue(name)
    whole = first(config, 3, start_step=start)
    parts = [
        first(config, 3, start_step=start, share=HostShard(host, hosts)) for host in range(hosts)
    ]
    for step, batch in enumerate(whole):
        for field in batch:
            joined = np.concatenate([part[step][field] for part in parts])
            np.testing.assert_array_equal(joined, batch[field])


@pytest.mark.parametrize('batch_size', [1, 5, 13, 64, 100])
def test_the_stream_does_not_depend_on_how_it_is_cut(imagenet, batch_size):
    """Batches of any size are pieces of one stream of images."""
    imagenet.batch_size = 130
    whole = np.concatenate([batch['image'] for batch in first(imagenet, 2)])
    imagenet.batch_size = batch_size
    steps = 130 // batch_size
    cut = np.concatenate([batch['image'] for batch in first(imagenet, steps)])
    np.testing.assert_array_equal(cut, whole[: steps * batch_size])


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
    whole, _, _ = eval_rows(config, HostShard(0, 1))
    assert len(whole) == data.dataset_info(config).num_eval
    parts = [eval_rows(config, HostShard(host, hosts)) for host in range(hosts)]
    assert sorted(row for rows, _, _ in parts for row in rows) == sorted(whole)
    assert len({(tuple(shapes), number) for _, shapes, number in parts}) == 1  # hosts in step
    (shape,) = parts[0][1]
    assert shape[0] % 8 == 0  # local devices


def test_a_larger_shuffle_buffer_gives_another_order(imagenet_tfrecord):
    original = first(imagenet_tfrecord, 1)[0]
    imagenet_tfrecord.dataset.shuffle_buffer = 2
    assert (first(imagenet_tfrecord, 1)[0]['image'] != original['image']).any()


def test_the_number_of_threads_changes_no_image(imagenet):
    imagenet.dataset.num_threads = 1
    alone = first(imagenet, 3)
    imagenet.dataset.num_threads = 5
    assert_equal(first(imagenet, 3), alone)


@pytest.mark.parametrize('name', ['imagenet', 'imagenet_tfrecord'])
def test_an_interpreter_exits_with_batches_under_way(name, request):
    config = request.getfixturevalue(name)
    code = (
        'from ssanet_jax import data; from tests.conftest import imagenet_config\n'
        f'config = imagenet_config({config.dataset.data_dir!r})\n'
        'train, evaluation = data.train_batches(config), data.eval_batches(config, "validation")\n'
        'next(train), next(evaluation)\n'
        'print("left")'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (result.returncode, result.stdout) == (0, 'left\n'), result.stderr
