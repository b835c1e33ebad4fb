"""Several processes, as on several hosts, train as one process with as many devices."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import fabricate
from tests.helpers import ROOT
from tests.host_processes import finish, free_port, start, start_hosts, wait_for


def metrics(workdir):
    """(step, split, examples) of each line, and the losses."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [(x['step'], x['split'], x['num_examples']) for x in lines], [x['loss'] for x in lines]


_TWO_HOSTS = """
import sys, time
from ssanet_jax.errors import ConfigError, HostLostError, RunError
from ssanet_jax.tools import cli
from ssanet_jax.training.multihost import agreement
from ssanet_jax.training.multihost import hosts, shutdown

shutdown._GRACE_S = 0.1
address, host = sys.argv.pop(1), int(sys.argv.pop(1))

class LaterError(RunError):
    pass

def attempt():
    if host == 1:
        raise LaterError('é' * 5000 + ' end')

def main():
    hosts.connect(address, 2, host)
    own = hosts.raise_on_all_hosts(lambda: host, 'a test')
    print(own, hosts.exchange({'host': host}, 'a test'))
    try:
        hosts.raise_on_all_hosts(attempt, 'a test')
    except LaterError as error:
        print(len(str(error)), str(error)[-4:])
    try:
        agreement.check_same({'the size': 3, 'the colour': 'blue' if host else 'red'}, 'a test')
    except ConfigError as error:
        print(error)
    hosts.WAIT_TIMEOUT_S = 1
    if host == 0:
        try:
            hosts.exchange(None, 'the second host')
        except HostLostError as error:
            print(error)
        hosts.WAIT_TIMEOUT_S = 600
        hosts.exchange(None, 'nothing that comes')
    time.sleep(2)
    raise LaterError('a reason')

cli.run(main, lambda: None)
"""


def run_two_hosts(code):
    """The two processes that run `code` with an address and their numbers as arguments."""
    port = free_port()
    environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo'}
    return [
        subprocess.Popen(
            [sys.executable, '-c', code, f'127.0.0.1:{port}', str(host)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for host in range(2)
    ]  # fmt: skip


def test_hosts_exchange_values_raise_errors_and_end_together():
    printed, errors = finish(run_two_hosts(_TWO_HOSTS), 1)
    for host in range(2):
        lines = printed[host].splitlines()
        assert lines[:3] == [
            f"{host} [{{'host': 0}}, {{'host': 1}}]",
            f'{len("Host 1: ") + 5004}  end',
            'The hosts disagree: the colour is red on host 0 and blue on host 1. Start every host '
            'with the same command, code, packages and data.',
        ]
    assert 'Waited 1 s for the second host of host 1. Its own log' in printed[0]
    assert errors == ['-c: Host 1: a reason\n', '-c: a reason\n']  # the first was at a barrier


@pytest.fixture(scope='module')
def one(tmp_path_factory, data_dir):
    """The metrics of a run of one process with four devices."""
    workdir = tmp_path_factory.mktemp('one')
    finish([start(workdir, data_dir, 4)], 0)
    return metrics(workdir)


def assert_as_one(workdir, one):
    assert metrics(workdir)[0] == one[0]
    assert {count for _, split, count in one[0] if split == 'eval'} == {360}
    losses = metrics(workdir)[1]
    np.testing.assert_allclose(losses[:3], one[1][:3], rtol=1e-4)
    np.testing.assert_allclose(losses, one[1], rtol=2e-2)  # sums in another order, 120 steps on


@pytest.mark.slow
def test_two_processes_are_stopped_and_killed_and_train_as_one(one, tmp_path, data_dir):
    processes = start_hosts(2, tmp_path, data_dir)
    wait_for(processes[0], 'step 30/120  eval')
    processes[1].send_signal(signal.SIGTERM)  # one gets the signal, both agree on a step
    _, errors = finish(processes, 75)
    step = int(errors[0].rpartition('after step ')[2].partition(',')[0])
    assert f'after step {step}, which is saved' in errors[1]

    processes = start_hosts(2, tmp_path, data_dir)
    wait_for(processes[0], 'step 80/120  train')
    processes[1].kill()
    killed = time.monotonic()
    (_, errors), _ = processes[0].communicate(timeout=120), processes[1].communicate()
    assert processes[0].returncode in (69, -signal.SIGABRT)
    assert time.monotonic() - killed < 60
    assert 'Another host was lost' in errors or 'another task died' in errors
    assert 'Traceback' in errors or 'another task died' in errors

    printed, _ = finish(start_hosts(2, tmp_path, data_dir), 0)
    assert 'Resuming from the checkpoint of step' in printed[0]
    assert 'step' not in printed[1]  # only the first host speaks
    assert_as_one(tmp_path, one)


@pytest.mark.slow
def test_a_config_error_on_one_host_stops_all(tmp_path):
    """The second host has no data; the first would wait for it in the first step."""
    photos = fabricate.image_folder(tmp_path / 'photos')
    flags = '--config.dataset.name=folder', '--config.dataset.eval_split=validation'
    last = {'data_dir': tmp_path / 'none'}
    _, errors = finish(start_hosts(2, tmp_path / 'run', photos, *flags, last=last), 2)
    for text in errors:
        assert 'main.py: Host 1: config.dataset.data_dir=' in text
        assert 'it is not a folder' in text
    assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_four_processes_train_as_one_and_two_resume_from_their_checkpoint(one, tmp_path, data_dir):
    steps = '--config.num_train_steps={}'
    finish(start_hosts(4, tmp_path, data_dir, steps.format(60)), 0)
    finish(start_hosts(2, tmp_path, data_dir, steps.format(120)), 0)
    assert_as_one(tmp_path, one)
