"""Properties of batches from memory, array_record files and tfrecord files."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from ssanet_jax import data
from ssanet_jax.data import HostShard
from tests import stored_digits
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


def test_a_run_resumed_at_step_k_reads_the_same_batches(config):
    whole = first(config, 10)
    for start in (1, 7):
        assert_equal(first(config, 3, start_step=start), whole[start : start + 3])


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


@pytest.fixture(scope='module', params=['memory', 'array_record', 'tfrecord'])
def storage(request, tmp_path_factory):
    """The file format of the digits, and their folder, in seven files."""
    if request.param == 'memory':
        return 'memory', None
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, stored_digits.prepare(folder, request.param, 7)


@pytest.fixture
def plain_digits(storage, digits):
    """The digits without augmentation."""
    digits.dataset.flip, digits.dataset.crop_padding = False, 0
    kind, folder = storage
    if kind != 'memory':
        stored_digits.use(digits, folder)
        digits.dataset.in_memory = False
        digits.dataset.shuffle_buffer = 50
    return digits


def all_digits():
    images = np.round(load_digits().images * (255 / 16)).astype(np.uint8)
    train, _ = train_test_split(
        images, test_size=360, stratify=load_digits().target, random_state=0
    )
    return sorted(bytes(np.repeat(image[..., None], 3, axis=-1)) for image in train)


@pytest.mark.parametrize('hosts', [1, 3])
def test_every_example_comes_once_an_epoch(plain_digits, hosts):
    """1,437 = 3 x 479: an epoch is one step of three hosts or three steps of one."""
    plain_digits.batch_size = 1437 // 3 * hosts
    steps = 3 // hosts
    epochs = []
    for epoch in (0, 1):
        images = [
            bytes(image)
            for host in range(hosts)
            for batch in first(
                plain_digits, steps, start_step=epoch * steps, shard=HostShard(host, hosts)
            )
            for image in batch['image']
        ]
        assert sorted(images) == all_digits()
        epochs.append(images)
    assert epochs[0] != epochs[1]


def test_slices_of_a_split_cross_files(plain_digits, storage, tmp_path):
    plain_digits.dataset.train_split = 'train[100:1300]'
    plain_digits.batch_size = 1200
    kind, folder = storage
    stored = folder or stored_digits.prepare(tmp_path, 'array_record', 7)
    builder = stored_digits.StoredDigits(data_dir=stored)
    if kind == 'tfrecord':
        examples = builder.as_dataset(split='train[100:1300]').as_numpy_iterator()
    else:  # in memory, in the order of the files
        examples = builder.as_data_source('train[100:1300]')
    expected = sorted(bytes(np.repeat(x['image'], 3, axis=-1)) for x in examples)
    (batch,) = first(plain_digits, 1)
    assert sorted(map(bytes, batch['image'])) == expected


@pytest.mark.parametrize('hosts', [2, 4])
@pytest.mark.parametrize('start', [10**6 + 5])
@pytest.mark.parametrize('name', ['digits', 'imagenet'])
def test_hosts_share_the_batches_of_one_host(name, start, hosts, request):
    config = request.getfixturevalue(name)
    whole = first(config, 3, start_step=start)
    parts = [
        first(config, 3, start_step=start, shard=HostShard(host, hosts)) for host in range(hosts)
    ]
    for step, batch in enumerate(whole):
        for field in batch:
            joined = np.concatenate([part[step][field] for part in parts])
            np.testing.assert_array_equal(joined, batch[field])


def test_the_stream_does_not_depend_on_how_it_is_cut(imagenet):
    """Batches of any size are pieces of one stream of images."""
    imagenet.batch_size = 130
    whole = np.concatenate([batch['image'] for batch in first(imagenet, 1)])
    for imagenet.batch_size in (1, 13, 100):
        steps = 130 // imagenet.batch_size
        cut = np.concatenate([batch['image'] for batch in first(imagenet, steps)])
        np.testing.assert_array_equal(cut, whole[: len(cut)])


def eval_rows(config, shard):
    batches = list(data.eval_batches(config, config.dataset.eval_split, shard=shard))
    rows = [
        (bytes(image), int(label))
        for batch in batches
        for image, label, real in zip(batch['image'], batch['label'], batch['mask'], strict=True)
        if real
    ]
    return rows, {batch['image'].shape for batch in batches}, len(batches)


@pytest.mark.parametrize(('hosts', 'batch_size'), [(1, 1000), (3, 7), (4, 64)])
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


@pytest.mark.slow
def test_an_interpreter_exits_with_batches_in_flight(imagenet, imagenet_tfrecord):
    """Also: importing the package neither imports TensorFlow nor changes OpenCV's threads."""
    code = (
        'import sys, cv2; cv2.setNumThreads(3)\n'
        'from ssanet_jax import data; import ssanet_jax.data.decoding.crops\n'
        'assert "tensorflow" not in sys.modules\n'
        'from tests.conftest import imagenet_config\n'
        f'for folder in {[c.dataset.data_dir for c in (imagenet, imagenet_tfrecord)]}:\n'
        '    config = imagenet_config(folder)\n'
        '    train = data.train_batches(config)\n'
        '    evaluation = data.eval_batches(config, "validation")\n'
        '    next(train), next(evaluation)\n'
        'assert cv2.getNumThreads() == 3\n'
        'print("left")'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert (result.returncode, result.stdout) == (0, 'left\n'), result.stderr
