"""configs/imagenet_ssa50.py end to end, on a small ImageNet in the real format."""

import itertools
import json
import re

import numpy as np
import pytest

from ssanet_jax import data
from tests.test_main import main


@pytest.mark.slow
@pytest.mark.parametrize('files', ['imagenet_dir', 'imagenet_tfrecord_dir'])
def test_train_evaluate_and_resume(files, request, tmp_path):
    """On array_record files and on tfrecord files."""
    imagenet_dir = request.getfixturevalue(files)
    flags = [
        '--config=configs/imagenet_ssa50.py',
        f'--workdir={tmp_path}',
        f'--config.dataset.data_dir={imagenet_dir}',
        '--config.dataset.image_size=64',
        '--config.batch_size=8',
        '--config.log_every_steps=1',
        '--config.eval_every_steps=3',
    ]
    started = main(*flags, '--config.num_train_steps=3', timeout=900)
    assert started.returncode == 0, started.stderr
    resumed = main(*flags, '--config.num_train_steps=5', timeout=900)
    assert resumed.returncode == 0, resumed.stderr
    assert 'Resuming from the checkpoint of step 3' in resumed.stdout
    assert ('Convert it before a run' in started.stdout) == (files == 'imagenet_tfrecord_dir')
    evaluated = main(*flags, '--mode=eval', '--checkpoint=5', timeout=900)
    assert evaluated.returncode == 0, evaluated.stderr

    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').read_text().splitlines()]
    steps = [(line['step'], line['split']) for line in lines]
    train = [(step, 'train') for step in (1, 2, 3, 4, 5)]
    assert sorted(steps) == sorted([*train, (3, 'eval'), (5, 'eval')])
    assert all(np.isfinite(line['loss']) for line in lines)
    assert {line['num_examples'] for line in lines if line['split'] == 'eval'} == {21}
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['parameters'] == 25_557_064
    loss = float(re.search(r'loss +│ +([0-9.]+)', evaluated.stdout)[1])
    assert loss == pytest.approx(summary['final']['loss'], rel=1e-3)  # folds BatchNorms


@pytest.mark.slow
def test_the_recipes_own_size(imagenet):
    imagenet.dataset.image_size = 224
    for batch in itertools.islice(data.train_batches(imagenet), 3):
        assert batch['image'].shape == (16, 224, 224, 3)
    masks = [batch['mask'] for batch in data.eval_batches(imagenet, 'validation')]
    assert np.concatenate(masks).sum() == 21
