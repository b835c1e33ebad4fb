"""Several processes, as on several hosts, train as one process with as many devices."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.helpers import ROOT


def start(workdir, data_dir, devices, *flags):
    environment = {
        **os.environ,
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
    }
    return subprocess.Popen(
        [
            sys.executable, 'main.py', '--config=configs/digits_ssa20.py',
            f'--workdir={workdir}', f'--config.dataset.data_dir={data_dir}',
            '--config.num_train_steps=120', '--config.log_every_steps=10',
            '--config.eval_every_steps=30', '--config.optimizer.learning_rate=0.001',
            '--config.optimizer.schedule=constant', '--noreport',
            '--config.model.name=ssa_resnet8', *flags,
        ],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_hosts(number, workdir, data_dir, *flags):
    """Starts the processes of one run, with four devices in all."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    hosts = [f'--coordinator_address=127.0.0.1:{port}', f'--num_processes={number}', *flags]
    return [
        start(workdir, data_dir, 4 // number, *hosts, f'--process_id={i}') for i in range(number)
    ]


def finish(processes, *codes):
    """Returns the outputs and the errors; all processes must exit with one of `codes`."""
    outputs = [process.communicate(timeout=300) for process in processes]
    assert {process.returncode for process in processes} <= set(codes), outputs
    return [output for output, _ in outputs], [errors for _, errors in outputs]


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())


def metrics(workdir):
    """(step, split, examples) of each line, and the losses."""
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [(x['step'], x['split'], x['num_examples']) for x in lines], [x['loss'] for x in lines]


_RAISES_ON_THE_SECOND = """
import sys
from ssanet_jax.errors import RunError
from ssanet_jax.training import parallel

address, host = sys.argv[1], int(sys.argv[2])
parallel.initialize_hosts(address, 2, host)
print(parallel.raise_on_all_hosts(lambda: host))

class LaterError(RunError):
    pass

def attempt():
    if host == 1:
        raise LaterError('é' * 5000 + ' end')

try:
    parallel.raise_on_all_hosts(attempt)
except LaterError as error:
    print(len(str(error)), str(error)[-4:])
"""


def test_an_error_of_one_host_is_raised_on_all_with_its_kind_and_full_message():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    environment = {**os.environ, 'XLA_FLAGS': '', 'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo'}
    processes = [
        subprocess.Popen(
            [sys.executable, '-c', _RAISES_ON_THE_SECOND, f'127.0.0.1:{port}', str(host)],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for host in range(2)
    ]  # fmt: skip
    printed, _ = finish(processes, 0)
    length = len('Host 1: ') + 5004
    for host in range(2):  # Gloo prints before them
        assert printed[host].endswith(f'{host}\n{length}  end\n')


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
def test_a_config_error_on_one_host_stops_all(tmp_path, data_dir):
    """The second host has no data; the first would wait for it in the first step."""
    good, bad = (tmp_path / name for name in ('good', 'bad'))
    bad.write_text('not a folder')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    hosts = [f'--coordinator_address=127.0.0.1:{port}', '--num_processes=2']
    processes = [
        start(good, data, 2, *hosts, f'--process_id={i}') for i, data in enumerate((data_dir, bad))
    ]
    _, errors = finish(processes, 2)
    assert all('main.py: Host 1: digits could not be written to' in text for text in errors)
    assert not good.exists()


@pytest.mark.slow
def test_four_processes_train_as_one_and_two_resume_from_their_checkpoint(one, tmp_path, data_dir):
    steps = '--config.num_train_steps={}'
    finish(start_hosts(4, tmp_path, data_dir, steps.format(60)), 0)
    finish(start_hosts(2, tmp_path, data_dir, steps.format(120)), 0)
    assert_as_one(tmp_path, one)
