"""Training and evaluation on datasets with one image of each kind of damage."""

import numpy as np
import pytest
from absl import logging

from ssanet_jax import data
from ssanet_jax.data import HostShard
from ssanet_jax.data.builders import open_builder
from ssanet_jax.errors import ConfigError
from tests import fabricate
from tests.conftest import imagenet_config

NUM_BAD = len(fabricate.bad_files())


@pytest.fixture
def config(bad_imagenet_dir):
    config = imagenet_config(bad_imagenet_dir)
    config.dataset.max_bad_fraction = 0.5
    config.dataset.bad_eval_images = 'incorrect'
    return config


@pytest.fixture
def logged(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, 'warning', lambda text, *values: lines.append(text % values))
    return lines


def first(config, number, **kwargs):
    batches = data.train_batches(config, **kwargs)
    return [next(batches) for _ in range(number)]


def test_training_substitutes_each_and_logs_it_once(config, logged):
    epochs = first(config, 10)  # 160 of 54 images: each bad one comes at least twice
    assert all(image.any() for batch in epochs for image in batch['image'])
    named = [line for line in logged if 'cannot be decoded: ' in line]
    assert len(named) == NUM_BAD
    assert all('imagenet2012-train.' in line and '__' in line for line in named)
    assert any('The file is empty' in line for line in named)


def test_substitutes_are_the_same_after_a_restart(config):
    whole = first(config, 8)
    for start in (1, 6):
        for left, right in zip(first(config, 2, start_step=start), whole[start:], strict=False):
            np.testing.assert_array_equal(left['image'], right['image'])
            np.testing.assert_array_equal(left['label'], right['label'])


def test_substitutes_are_the_same_on_any_number_of_hosts(config):
    whole = first(config, 4)
    parts = [first(config, 4, shard=HostShard(host, 2)) for host in range(2)]
    if open_builder(config.dataset).info.file_format.value == 'tfrecord':
        # Each host has another order, which is reproducible.
        again = first(config, 4, shard=HostShard(1, 2))
        np.testing.assert_array_equal(
            [batch['image'] for batch in again], [batch['image'] for batch in parts[1]]
        )
        return
    for step, batch in enumerate(whole):
        joined = np.concatenate([part[step]['image'] for part in parts])
        np.testing.assert_array_equal(joined, batch['image'])


def test_too_many_stop_the_run_and_name_the_last(config):
    config.dataset.max_bad_fraction = 0.05  # two of 54
    with pytest.raises(ConfigError, match=r'3 of 54 images cannot .* the last is imagenet2012-tr'):
        first(config, 10)


def test_evaluation_refuses_a_bad_image_by_name(config):
    config.dataset.bad_eval_images = 'error'
    with pytest.raises(ConfigError, match=r'imagenet2012-validation\.\S+__\d+ cannot be decoded'):
        list(data.eval_batches(config, 'validation'))


@pytest.mark.parametrize('hosts', [1, 3])
def test_evaluation_counts_it_as_incorrect_if_allowed(config, hosts):
    batches = [
        batch
        for host in range(hosts)
        for batch in data.eval_batches(config, 'validation', shard=HostShard(host, hosts))
    ]
    label, mask, image = (
        np.concatenate([batch[name] for batch in batches]) for name in ('label', 'mask', 'image')
    )
    assert mask.sum() == 21 + NUM_BAD
    assert (label[mask] == -1).sum() == NUM_BAD
    assert (image[label == -1] == 0).all()


@pytest.mark.parametrize('in_memory', [False, True])
def test_a_split_of_nothing_but_bad_images_is_refused(config, tmp_path, in_memory):
    config.dataset.name, config.dataset.data_dir = 'folder', str(tmp_path)
    (tmp_path / 'train' / 'a').mkdir(parents=True)
    for number, content in enumerate(fabricate.bad_files().values()):
        (tmp_path / 'train' / 'a' / f'{number}.jpg').write_bytes(content)
    config.dataset.max_bad_fraction, config.dataset.in_memory = 1.0, in_memory
    with pytest.raises(ConfigError, match='cannot be decoded, nor can any'):
        first(config, 1)


def test_in_memory_the_same_images_are_substituted_and_counted(config, logged):
    config.dataset.train_crop, config.dataset.eval_crop = 'padded', 'whole'
    if open_builder(config.dataset).info.file_format.value == 'tfrecord':
        pytest.skip('its order differs when it is streamed')
    from_disk, evaluation = first(config, 5), list(data.eval_batches(config, 'validation'))
    logged.clear()
    config.dataset.in_memory = True
    for left, right in zip(from_disk, first(config, 5), strict=True):
        np.testing.assert_array_equal(left['image'], right['image'])
        np.testing.assert_array_equal(left['label'], right['label'])
    assert len([line for line in logged if 'cannot be decoded: ' in line]) == NUM_BAD
    for left, right in zip(evaluation, data.eval_batches(config, 'validation'), strict=True):
        np.testing.assert_array_equal(left['image'], right['image'])
        np.testing.assert_array_equal(left['label'], right['label'])
    config.dataset.bad_eval_images = 'error'
    with pytest.raises(ConfigError, match=r'imagenet2012-validation\.\S+__\d+ cannot be decoded'):
        list(data.eval_batches(config, 'validation'))
    config.dataset.max_bad_fraction = 0.05
    with pytest.raises(ConfigError, match='3 of 54 images cannot'):
        first(config, 1)


def test_a_file_that_vanishes_ends_the_run_with_its_name(config, tmp_path):
    config.dataset.name = 'folder'
    config.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees'))
    data.dataset_info(config)
    (tmp_path / 'trees' / 'train' / 'ash' / '3.jpg').unlink()
    with pytest.raises(ConfigError, match=r'ash/3\.jpg'):
        first(config, 4)
