"""Two processes, as on two hosts, train as one process with as many devices."""

import json
import os
import socket
import subprocess
import sys

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
            '--config.num_train_steps=6', '--config.log_every_steps=2',
            '--config.eval_every_steps=3', '--config.optimizer.learning_rate=0.01', *flags,
        ],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(processes):
    outputs = [process.communicate(timeout=600)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), outputs
    return outputs


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    return [(x['step'], x['split'], x['num_examples']) for x in lines], [x['loss'] for x in lines]


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, data_dir):
    finish([start(tmp_path / 'one', data_dir, 4)])
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    hosts = [f'--coordinator_address=127.0.0.1:{port}', '--num_processes=2']
    for _ in range(2):  # the second time from the last checkpoint
        outputs = finish(
            [start(tmp_path / 'two', data_dir, 2, *hosts, f'--process_id={i}') for i in range(2)]
        )
    assert 'Going on from the checkpoint of step 6' in outputs[0]
    assert 'step' not in outputs[1]  # only the first host speaks
    (one_steps, one_losses), (two_steps, two_losses) = (
        losses(tmp_path / name) for name in ('one', 'two')
    )
    assert one_steps == two_steps
    assert {count for _, split, count in two_steps if split == 'eval'} == {360}
    np.testing.assert_allclose(two_losses, one_losses, rtol=1e-3)
