"""Runs of a study: paired, resumed after kill -9, recorded as the training loop counts."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ssanet_jax import data
from ssanet_jax.study import load_study, runner, supervisor
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.training import trainer_setup
from tests.helpers import ROOT

TINY = """
from configs import digits_ssa20
from ssanet_jax.study import Study, Variant

def get_study():
    config = digits_ssa20.get_config()
    config.dataset.data_dir = {data_dir!r}
    config.model.name = 'resnet8'
    config.num_train_steps = 300
    config.checkpoint_every_steps = 50
    config.log_every_steps = 25
    return Study(
        question='Does it work?',
        config=config,
        variants={{'none': Variant(), 'ssa': Variant({{'model.name': 'ssa_resnet8'}})}},
        seeds=[3],
        smallest_effect=0.3,
        corruptions=['contrast_1', 'shift_2'],
    )
"""


@pytest.fixture(scope='module')
def study_file(tmp_path_factory, data_dir):
    path = tmp_path_factory.mktemp('study') / 'tiny.py'
    path.write_text(TINY.format(data_dir=str(data_dir)))
    return path


def test_variants_share_initial_values_and_batches(study_file):
    study = load_study(study_file)
    states, batches = {}, {}
    for variant in study.variants:
        config = study.run_config(variant, seed=3)
        setup = trainer_setup.build(config, num_classes=10, num_train_examples=1437)
        states[variant] = flatten_dict(setup.init().params)
        batches[variant] = next(data.train_batches(config))
    assert len(states['ssa']) == len(states['none']) + 2 * 3  # scale and bias of three blocks
    for path, value in states['none'].items():
        np.testing.assert_array_equal(value, states['ssa'][path], err_msg=str(path))
    np.testing.assert_array_equal(batches['none']['image'], batches['ssa']['image'])


def test_a_killed_study_resumes_to_the_same_bits(study_file, tmp_path):
    killed, whole = StudyFolder(tmp_path / 'killed'), StudyFolder(tmp_path / 'whole')
    _start_and_kill(study_file, killed)
    assert not list(killed.finished())
    study = load_study(study_file)
    for folder in (killed, whole):
        for variant, seed in study.runs():
            assert runner.run(study, variant, seed, folder) is not None
            assert runner.run(study, variant, seed, folder) is None  # it has a record
            assert not folder.workdir(variant, seed).exists()
    np.testing.assert_array_equal(killed.read_labels(), whole.read_labels())
    for variant, seed in study.runs():
        a, b = killed.read_run(variant, seed), whole.read_run(variant, seed)
        for name in ('log_probs', 'steps', 'train_loss', 'predictions'):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    description = killed.read_description()
    assert (
        description['variants']['ssa']['parameters']
        == 6 + (description['variants']['none']['parameters'])
    )


def _start_and_kill(study_file, folder):
    """Starts the command and kills it, with its workers, after a checkpoint."""
    command = [sys.executable, '-m', 'ssanet_jax.tools.study', f'--study={study_file}']
    command += [f'--out={folder}', '--workers=1']
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    checkpoint = folder.workdir('none', 3) / 'checkpoints' / '50'
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        while True:  # until the workers have ended too
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def test_a_record_agrees_with_the_evaluation_of_the_loop(study_file, tmp_path, monkeypatch):
    study, folder = load_study(study_file), StudyFolder(tmp_path)
    evaluations = []

    def keep(path, *args, **kwargs):
        evaluations.append(json.loads((path / 'summary.json').read_text())['final'])

    monkeypatch.setattr(runner.shutil, 'rmtree', keep)
    record = runner.run(study, 'ssa', 3, folder)
    labels = folder.read_labels()
    assert record.log_probs.shape == (360, 10)
    accuracy = 100 * np.mean(record.log_probs.argmax(-1) == labels)
    assert accuracy == pytest.approx(evaluations[0]['top1'], abs=0.01)
    nll = -np.mean(record.log_probs[np.arange(360), labels].astype(np.float64))
    assert nll == pytest.approx(evaluations[0]['loss'], rel=1e-2)
    assert record.steps.tolist() == list(range(25, 301, 25))
    assert record.predictions.shape == (2, 360)


@pytest.mark.parametrize(
    ('visible', 'gpus'), [(None, ['0', '1', '2']), ('4,5', ['4', '5', '4']), ('7', ['7', '7', '7'])]
)
def test_workers_get_one_visible_gpu_each(visible, gpus):
    assert [supervisor.nth_gpu(visible, index) for index in range(3)] == gpus
