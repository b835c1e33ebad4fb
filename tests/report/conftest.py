"""Runs to report on: a real one on the digits, and fabricated ones with any data."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.report import evaluation, page
from ssanet_jax.trained.load import TrainedModel, with_defaults
from ssanet_jax.training import loop, run_history, summary, trainer_setup
from ssanet_jax.training.checkpoint import Checkpoints
from ssanet_jax.training.metrics_file import line
from tests.browser import chromium  # noqa: F401
from tests.helpers import load_config
from tests.report.runs import Brightness, random_state, without_checkpoint


@pytest.fixture(scope='session')
def digits_run(tmp_path_factory, data_dir):
    """The workdir of a run on the digits, evaluated by the loop at two steps; leave it as it is."""
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    info = data.dataset_info(config)
    run = trainer_setup.build(config, num_classes=10, num_train_examples=info.num_train)
    workdir = epath.Path(tmp_path_factory.mktemp('runs')) / 'digits'
    with Checkpoints(workdir, keep=2) as checkpoints:
        run_history.record(config, info, workdir, 0)
        lines = []
        for seed, step in enumerate((23, 45)):
            state = random_state(run, step, seed)
            checkpoints.save(step, (state, run.zero_metrics().sums()), wait=True)
            lines.append(line(step, 'train', loss=2.0 / step, top1=50.0, learning_rate=0.1))
            lines.append(line(step, 'eval', **loop.evaluate(config, run, state)))
    (workdir / 'metrics.jsonl').write_text(''.join(lines))
    summary.write_summary(workdir, model_cost(run.model, 8), {'folded': 0, 'plain': 9})
    return workdir


@pytest.fixture
def fabricated(tmp_path, monkeypatch):
    """A function that makes a workdir whose network and data are as told."""

    def make(image, label, classes, *, scale=1.0, batch=50):
        """Images uint8 [N, s, s, 3], labels [N], names of classes; `scale` of the weights."""
        dataset = {'name': 'mine', 'image_size': image.shape[1]}
        model = {'name': 'ssa_resnet20'}
        workdir = without_checkpoint(tmp_path / 'run', model=model, dataset=dataset)
        config = with_defaults(json.loads((workdir / 'config.json').read_text()))
        model = Brightness(len(classes))
        variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False)
        variables = jax.tree.map(lambda leaf: leaf * scale, variables)
        run = TrainedModel(config, model, dict(variables), 7, tuple(classes))
        info = data.DatasetInfo(500, len(image), len(classes), tuple(classes), '', '', '')

        def batches(config, split, *, share):
            assert (split, share) == ('validation', (0, 1))
            for start in range(0, len(image), batch):
                some = np.arange(start, start + batch)
                index = np.minimum(some, len(image) - 1)
                labels = label[index].astype(np.int32)
                yield {'image': image[index], 'label': labels, 'mask': some < len(image)}

        monkeypatch.setattr(page, 'has_checkpoints', lambda folder: True)
        monkeypatch.setattr(page, 'load_trained', lambda folder, checkpoint: run)
        monkeypatch.setattr(evaluation.data, 'dataset_info', lambda config: info)
        monkeypatch.setattr(evaluation.data, 'eval_batches', batches)
        return workdir, run

    return make
