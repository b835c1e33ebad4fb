"""Runs to report on: a real one on the digits, and fabricated ones with any dataset."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.config import with_defaults
from ssanet_jax.report import evaluation, page
from ssanet_jax.trained.load import TrainedModel, load_trained
from ssanet_jax.training import loop, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.monitoring import console
from ssanet_jax.training.storage import run_history
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from tests.browser import chromium  # noqa: F401
from tests.helpers import load_config
from tests.report.runs import Brightness, random_state, without_checkpoint


@pytest.fixture(scope='session')
def digits_run(tmp_path_factory, data_dir):
    """The workdir of a run on the digits, evaluated by the loop at two steps; read-only."""
    config = load_config('digits_ssa20')
    config.model.name = 'ssa_resnet8'
    config.dataset.data_dir = str(data_dir)
    info = data.dataset_info(config)
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=info.num_train)
    workdir = Workdir(epath.Path(tmp_path_factory.mktemp('runs')) / 'digits')
    with Checkpoints(workdir, keep=2) as checkpoints:
        run_history.record(config, info, workdir, 0)
        lines = []
        for seed, step in enumerate((23, 45)):
            state = random_state(setup, step, seed)
            checkpoints.save(step, (state, setup.zero_metrics().sums), wait=True)
            lines.append(metrics_line(step, 'train', loss=2.0 / step, top1=50.0, learning_rate=0.1))
            lines.append(metrics_line(step, 'eval', **loop.evaluate(config, setup, state)))
    workdir.metrics.write_text(''.join(lines))
    console.write_summary(workdir, model_cost(setup.model, 8), {'folded': 0, 'plain': 9})
    return workdir.path


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
