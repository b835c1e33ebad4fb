"""Evaluated and fabricated runs to report on."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.config import with_defaults
from ssanet_jax.report import evaluation, page
from ssanet_jax.trained.load import TrainedModel, load_trained
from tests.report.runs import Brightness, without_checkpoint


@pytest.fixture(scope='session')
def evaluated(digits_run):
    return evaluation.evaluate_trained(load_trained(digits_run), hardest=10, sample=100)


@pytest.fixture
def fabricated(tmp_path, monkeypatch):
    """A function that creates a workdir with a given dataset and a tiny network."""

    def make(image, label, classes, *, scale=1.0, batch=50):
        """Creates the run for images uint8 [N, s, s, 3], labels [N] and class names."""
        dataset = {'name': 'mine', 'image_size': image.shape[1]}
        model = {'name': 'ssa_resnet8'}
        workdir = without_checkpoint(tmp_path / 'run', model=model, dataset=dataset)
        (workdir / 'checkpoints' / '7').mkdir()
        config = with_defaults(json.loads((workdir / 'config.json').read_text()))
        model = Brightness(len(classes))
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        variables = jax.tree.map(lambda leaf: leaf * scale, variables)
        trained = TrainedModel(config, model, dict(variables), 7, tuple(classes))
        info = data.DatasetInfo(500, len(image), len(classes), tuple(classes), '', '', '')

        def batches(config, split, *, shard):
            assert (split, shard) == ('validation', (0, 1))
            for start in range(0, len(image), batch):
                some = np.arange(start, start + batch)
                index = np.minimum(some, len(image) - 1)
                labels = label[index].astype(np.int32)
                yield {'image': image[index], 'label': labels, 'mask': some < len(image)}

        monkeypatch.setattr(page, 'load_trained', lambda folder, checkpoint: trained)
        monkeypatch.setattr(evaluation.data, 'dataset_info', lambda config: info)
        monkeypatch.setattr(evaluation.data, 'eval_batches', batches)
        return workdir, trained

    return make
