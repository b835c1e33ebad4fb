"""Signals sent to main.py as by a scheduler or a user."""

import os
import pty
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest

from ssanet_jax.training import loop
from ssanet_jax.training.checkpoints.reader import CheckpointReader
from ssanet_jax.training.multihost.preemption import PreemptionHandler
from ssanet_jax.training.storage.workdir import Workdir
from tests.helpers import ROOT, assert_trees_equal


def start(workdir, data_dir):
    """Starts a run of 300 steps with an evaluation and a checkpoint every 20 steps."""
    return subprocess.Popen(
        [sys.executable, *command(workdir, data_dir)],
        cwd=ROOT, env={**os.environ, 'XLA_FLAGS': ''},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def command(workdir, data_dir):
    return [
        'main.py', '--config=configs/digits_ssa20.py', f'--workdir={workdir}',
        '--noreport', '--config.model.name=ssa_resnet8',
        f'--config.dataset.data_dir={data_dir}',
        '--config.num_train_steps=300', '--config.eval_every_steps=20',
        '--config.log_every_steps=10', '--config.batch_size=16',
    ]  # fmt: skip


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def lines(workdir):
    return [
        {name: value for name, value in line.items() if name != 'images_per_second'}
        for line in Workdir(workdir).read_metrics()
    ]


def last_state(workdir):
    with CheckpointReader(workdir) as checkpoints:
        step = checkpoints.steps()[-1]
        return step, checkpoints.restore_variables(step)


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory, data_dir):
    """The workdir of an uninterrupted run."""
    workdir = tmp_path_factory.mktemp('uninterrupted')
    process = start(workdir, data_dir)
    _, errors = process.communicate()
    assert (process.returncode, errors) == (0, '')
    return workdir


def assert_same_run(workdir, uninterrupted):
    assert lines(workdir) == lines(uninterrupted)
    assert_trees_equal(last_state(workdir), last_state(uninterrupted))
    assert not (workdir / 'run.lock').exists()


@pytest.mark.slow
def test_a_signal_saves_and_the_run_resumes_bit_for_bit(uninterrupted, tmp_path, data_dir):
    for number, text in (
        (signal.SIGTERM, 'step 40/300  eval'),
        (signal.SIGINT, 'step 120/300'),
        (signal.SIGHUP, 'step 200/300'),
    ):
        process = start(tmp_path, data_dir)
        wait_for(process, text)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 75, errors
        step = int(errors.rpartition('after step ')[2].partition(',')[0])
        assert f'main.py: Stopped by {number.name} after step {step}, which is saved' in errors
        assert last_state(tmp_path)[0] == step
    process = start(tmp_path, data_dir)
    printed, _ = process.communicate()
    assert process.returncode == 0
    assert f'Resuming from the checkpoint of step {step}.' in printed
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path, data_dir):
    process = start(tmp_path, data_dir)
    wait_for(process, 'step 30/300  train')
    process.kill()
    process.communicate()
    process = start(tmp_path, data_dir)
    wait_for(process, 'step 80/300  eval')
    while not list((tmp_path / 'checkpoints').glob('*tmp*')):  # it is saving
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.communicate()
    process = start(tmp_path, data_dir)
    process.communicate()
    assert process.returncode == 0
    assert not list((tmp_path / 'checkpoints').glob('*tmp*'))
    assert_same_run(tmp_path, uninterrupted)


@pytest.mark.parametrize(('before', 'stops'), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)])
def test_a_closed_terminal_stops_a_run_unless_started_by_nohup(before, stops, monkeypatch):
    monkeypatch.setattr(sys, 'stderr', open('/dev/full', 'w'))  # noqa: SIM115
    ours = signal.signal(signal.SIGHUP, before)
    try:
        with PreemptionHandler() as preemption:
            preemption.after(1)
            os.kill(os.getpid(), signal.SIGHUP)
            end = time.monotonic() + (5 if stops else 0.2)  # a thread listens
            while not preemption.requested() and time.monotonic() < end:
                time.sleep(0.01)
            assert preemption.requested() is stops
    finally:
        signal.signal(signal.SIGHUP, ours)
        sys.stderr.close()


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path, data_dir):
    process = start(tmp_path, data_dir)
    wait_for(process, 'step 10/300  train')
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)  # either comes first
    assert errors.endswith('stopped at once, nothing more saved.\n')


@pytest.mark.slow
def test_a_run_whose_terminal_goes_away_saves(tmp_path, data_dir):
    controller, terminal = pty.openpty()
    code = (  # makes the terminal its own, as a shell does
        'import fcntl, os, sys, termios\n'
        'os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n'
        f'os.execv(sys.executable, [sys.executable, *{command(tmp_path, data_dir)!r}])'
    )
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=ROOT, env={**os.environ, 'XLA_FLAGS': ''},
        stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    while b'images/s' not in os.read(controller, 4096):
        pass
    os.close(controller)
    assert process.wait(timeout=60) == 75
    assert last_state(tmp_path)[0] > 0


def test_several_hosts_train_outside_of_the_main_thread(monkeypatch):
    """Where no signal arrives; JAX's preemption service, which is off then, is not asked."""
    monkeypatch.setattr(jax, 'process_count', lambda: 2)

    def train():
        with PreemptionHandler() as handler:
            handler.begin(5)
            return handler.after(6)

    with ThreadPoolExecutor(1) as pool:
        assert not pool.submit(train).result()


@pytest.mark.slow
def test_signal_handlers_are_restored_after_a_run(digits, tmp_path):
    digits.num_train_steps = 1
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    loop.train_and_evaluate(digits, str(tmp_path))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
