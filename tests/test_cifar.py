"""The CIFAR recipes on small data in CIFAR's binary format, read by TFDS's builders."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from ssanet_jax import data
from tests import fabricate
from tests.helpers import load_config
from tests.test_main import main


def prepare(name, tmp_path, monkeypatch):
    """Builds cifar10 or cifar100 from fabricated files instead of the download."""
    content = fabricate.cifar_files(tmp_path / 'files', name)
    monkeypatch.setattr(
        tfds.download.DownloadManager,
        'download_and_extract',
        lambda self, url: str(tmp_path / 'files'),
    )
    tfds.builder(name, data_dir=tmp_path / 'data').download_and_prepare()
    return content


@pytest.mark.parametrize('name', ['cifar10', 'cifar100'])
def test_images_and_labels_arrive_as_they_were_written(name, tmp_path, monkeypatch):
    content = prepare(name, tmp_path, monkeypatch)
    config = load_config(f'{name}_ssa50')
    config.dataset.data_dir = str(tmp_path / 'data')
    assert data.dataset_info(config).num_classes == {'cifar10': 10, 'cifar100': 100}[name]
    found = [
        (bytes(image), int(label))
        for batch in data.eval_batches(config, 'test')
        for image, label in zip(
            batch['image'][batch['mask']], batch['label'][batch['mask']], strict=True
        )
    ]
    assert sorted(found) == sorted(content['test'])
    batch = next(data.train_batches(config))
    assert batch['image'].shape == (100, 32, 32, 3)
    labels = np.bincount([label for _, label in content['train']], minlength=100)
    assert (np.bincount(batch['label'], minlength=100)[labels == 0] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['cifar10_se50', 'cifar100_ssa50'])
def test_a_recipe_trains_and_evaluates(recipe, tmp_path, monkeypatch):
    prepare(recipe.partition('_')[0], tmp_path, monkeypatch)
    result = main(
        f'--config=configs/{recipe}.py',
        f'--workdir={tmp_path / "run"}',
        f'--config.dataset.data_dir={tmp_path / "data"}',
        '--config.num_train_steps=2',
        '--config.batch_size=4',
        timeout=900,
    )
    assert result.returncode == 0, result.stderr
    assert 'peak learning rate 0.004 (0.1 per 100 images)' in result.stdout
    assert (
        json.loads((tmp_path / 'run' / 'summary.json').read_text())['final']['num_examples'] == 24
    )
