"""Runs of a study are paired, resume after kill -9, and record what the training loop counts."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from ssanet_jax import data
from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.study import load_study, runner, supervisor
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.tools import study as study_tool
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.storage.workdir import Workdir, metrics_line
from tests.helpers import ROOT, run_tool

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


@pytest.mark.slow
def test_the_memory_of_a_run_is_that_of_one_device(study_file, monkeypatch):
    """A batch of 64 at 8 pixels alone, beside 8 devices."""
    study = load_study(study_file)
    counted = runner.cost(study, 'none')
    monkeypatch.setattr(jax, 'local_devices', lambda: jax.devices()[3:4])
    assert runner.cost(study, 'none') == counted
    assert counted['memory_bytes'] > 64 * 8 * 8 * (3 + 4 * 16)  # images and a feature map


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_record(study_file, tmp_path):
    folder, study = StudyFolder(tmp_path / 'killed'), load_study(study_file)
    code = (
        'import sys; from ssanet_jax.study import load_study, runner\n'
        'from ssanet_jax.study.folder import StudyFolder\n'
        'runner.run(load_study(sys.argv[1]), "ssa", 3, StudyFolder(sys.argv[2]))'
    )
    start_and_kill([sys.executable, '-c', code, study_file, folder], folder.workdir('ssa', 3))
    assert not list(folder.finished())
    resumed = runner.run(study, 'ssa', 3, folder)
    assert runner.run(study, 'ssa', 3, folder) is None  # it has a record
    assert not folder.workdir('ssa', 3).exists()

    workdir = Workdir(tmp_path / 'whole')
    record, labels = runner.train(study, 'ssa', 3, workdir)
    for name in ('log_probs', 'steps', 'train_loss', 'predictions'):
        np.testing.assert_array_equal(getattr(resumed, name), getattr(record, name), err_msg=name)
    np.testing.assert_array_equal(folder.read_labels(), labels)
    assert record.steps.tolist() == list(range(25, 301, 25))
    assert record.predictions.shape == (2, 360)

    final = json.loads(workdir.summary.read_text())['final']
    assert 100 * np.mean(record.log_probs.argmax(-1) == labels) == pytest.approx(final['top1'])
    nll = -np.mean(record.log_probs[np.arange(360), labels].astype(np.float64))
    assert nll == pytest.approx(final['loss'], rel=1e-2)  # float16


@pytest.mark.slow
def test_a_killed_study_has_the_results_of_one_that_was_not(study_file, tmp_path):
    killed, whole = StudyFolder(tmp_path / 'killed'), StudyFolder(tmp_path / 'whole')
    command = [
        sys.executable,
        '-m',
        'ssanet_jax.tools.study',
        f'--study={study_file}',
        '--workers=2',
    ]
    start_and_kill([*command, f'--out={killed}'], killed.workdir('none', 3))
    results = []
    for folder in (killed, whole):
        subprocess.run([*command, f'--out={folder}'], cwd=ROOT, check=True)
        analysis = json.loads(folder.results.read_text())
        for variant in analysis['variants']:
            del variant['seconds'], variant['images_per_second']
        results.append(analysis)
    assert results[0] == results[1]
    none, ssa = results[0]['variants']
    assert ssa['parameters'] == none['parameters'] + 2 * 3


def start_and_kill(command, workdir):
    """Starts a command and kills it and its children after a checkpoint in `workdir`."""
    process = subprocess.Popen(list(map(str, command)), cwd=ROOT, start_new_session=True)
    checkpoint = workdir / 'checkpoints' / '50'
    deadline = time.monotonic() + 300
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with contextlib.suppress(ProcessLookupError):
        while True:  # until the children have ended too
            os.killpg(process.pid, 0)
            time.sleep(0.05)


@pytest.mark.parametrize(
    ('visible', 'gpus'), [(None, ['0', '1', '2']), ('4,5', ['4', '5', '4']), ('7', ['7', '7', '7'])]
)
def test_workers_get_one_visible_gpu_each(visible, gpus):
    assert [supervisor.nth_gpu(visible, index) for index in range(3)] == gpus


def test_a_failed_run_is_tried_once_and_named(study_file, tmp_path, monkeypatch):
    tried = []

    def fail(study, variant, seed, folder):
        tried.append(variant)
        raise RunError('The disk is full.')

    monkeypatch.setattr(runner, 'run', fail)
    monkeypatch.setattr(supervisor, '_redirect_output', lambda path: None)
    monkeypatch.setattr(supervisor.threading, 'Thread', Mock())
    folder, outcomes = StudyFolder(tmp_path), queue.Queue()
    failed = [False, False]
    for _ in range(2):  # workers
        supervisor._work(study_file, folder, 0, 1, outcomes, failed)
    assert tried == ['none', 'ssa']
    ended = [outcomes.get_nowait() for _ in tried]
    message = '2 of 2 runs failed: none, seed 3: The disk is full; ssa, .* is full. Fix the cause'
    with pytest.raises(RunError, match=message):
        supervisor._raise_failures(load_study(study_file), folder, ended)


def test_undecodable_images_are_left_out(study_file, monkeypatch):
    study = load_study(study_file)
    config = study.run_config('none', 3)
    setup = trainer_setup.build(config, num_classes=10, num_train_examples=1437)
    (batch, *_) = data.eval_batches(config, config.dataset.eval_split)
    batch['label'][1] = -1
    monkeypatch.setattr(data, 'eval_batches', lambda *_: [batch])
    log_probs, labels, predictions = runner.evaluate(config, setup, setup.init(), ['contrast_1'])
    count = batch['mask'].sum() - 1
    assert (len(log_probs), len(labels), predictions.shape) == (count, count, (1, count))
    assert labels.min() >= 0


@pytest.mark.parametrize('flags', [[], ['--study=x.py', '--analyze_only']])
def test_a_study_is_either_trained_or_analyzed(flags, tmp_path):
    with pytest.raises(ConfigError, match=r'Give --study=FILE to train, or --analyze_only'):
        run_tool(study_tool, f'--out={tmp_path}', *flags)


@pytest.mark.parametrize('flag', ['--workers=2', '--allow_code_change'])
def test_flags_of_training_are_refused_when_nothing_is_trained(flag, tmp_path):
    with pytest.raises(ConfigError, match=r'has no effect with --analyze_only; omit it'):
        run_tool(study_tool, '--analyze_only', f'--out={tmp_path}', flag)


def test_more_workers_than_devices_are_refused(study_file, tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, 'ProcessPoolExecutor', lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(supervisor, '_default_workers', lambda: (1, 'gpu'))
    monkeypatch.setattr(supervisor.description, 'describe', lambda *_: {})
    with pytest.raises(ConfigError, match='--workers=2 exceeds 1, one per device; omit it'):
        supervisor.run_study(
            study_file, StudyFolder(tmp_path / 'new'), workers=2, allow_code_change=False
        )
    assert not (tmp_path / 'new').exists()


@pytest.fixture
def stand_ins(monkeypatch):
    """Replaces the processes of a study; returns how its workers end, to change."""
    ends = {'records': ['none', 'ssa'], 'exitcode': 0}

    @contextlib.contextmanager
    def workers(path, folder, study, count):
        outcomes = queue.Queue()
        for variant in ends['records']:
            folder.run_path(variant, 3).parent.mkdir(parents=True)
            folder.run_path(variant, 3).touch()
            outcomes.put(supervisor.Outcome(variant, 3, 97.5))
        yield [Mock(is_alive=lambda: False, exitcode=ends['exitcode'])], outcomes

    monkeypatch.setattr(supervisor, 'ProcessPoolExecutor', lambda *_, **__: ThreadPoolExecutor(1))
    monkeypatch.setattr(supervisor, '_workers', workers)
    described = {'dataset': {'num_train': 1437}}
    monkeypatch.setattr(supervisor.description, 'describe', lambda *_: described)
    monkeypatch.setattr(supervisor.description, 'record', lambda *_, **__: None)
    return ends


def run_study(study_file, folder):
    supervisor.run_study(study_file, folder, workers=1, allow_code_change=False)


def test_a_study_prints_each_run_that_ends(stand_ins, study_file, tmp_path, capsys):
    run_study(study_file, StudyFolder(tmp_path / 'out'))
    assert capsys.readouterr().out.splitlines()[1:] == [
        'Does it work? 2 variants x 1 seeds; 0 of 2 runs are complete.',
        '2/2  none, seed 3: top-1 97.50%; 0 minutes left',
        '2/2  ssa, seed 3: top-1 97.50%; 0 minutes left',
    ]


def test_a_study_whose_runs_others_train_is_not_complete(stand_ins, study_file, tmp_path, capsys):
    stand_ins['records'] = ['none']
    folder = StudyFolder(tmp_path / 'out')
    workdir = Workdir(folder.workdir('ssa', 3))
    workdir.path.mkdir(parents=True)
    workdir.metrics.write_text(metrics_line(150, 'train', loss=1.0))
    with pytest.raises(RunError, match='1 runs are being trained by other processes'):
        run_study(study_file, folder)
    assert '1/2  none, seed 3: top-1 97.50%' in capsys.readouterr().out


def test_a_worker_that_was_killed_ends_the_study(stand_ins, study_file, tmp_path):
    stand_ins.update(records=[], exitcode=-9)
    with pytest.raises(RunError, match=r'Worker 0 ended with exit code -9, see its log in .*/work'):
        run_study(study_file, StudyFolder(tmp_path / 'out'))
