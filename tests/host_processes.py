"""Starts several processes of main.py as the hosts of one run."""

import os
import socket
import subprocess
import sys
import time

from tests.helpers import ROOT


def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def start(workdir, data_dir, devices, *flags, root=ROOT, program=('main.py',), **environment):
    environment = {
        **os.environ,
        'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}',
        'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
        **environment,
    }
    return subprocess.Popen(
        [
            sys.executable, *program, '--config=configs/digits_ssa20.py',
            f'--workdir={workdir}', f'--config.dataset.data_dir={data_dir}',
            '--config.num_train_steps=120', '--config.log_every_steps=10',
            '--config.eval_every_steps=30', '--config.optimizer.learning_rate=0.001',
            '--config.optimizer.schedule=constant', '--noreport',
            '--config.model.name=ssa_resnet8', *flags,
        ],
        cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_hosts(number, workdir, data_dir, *flags, last=None, **common):
    """Starts the processes of one run, with four devices in all.

    `last` changes the last host: its own flags, and arguments of `start` by name.
    `common` are such arguments of all hosts.
    """
    hosts = [f'--coordinator_address=127.0.0.1:{free_port()}', f'--num_processes={number}', *flags]
    common |= {'workdir': workdir, 'data_dir': data_dir, 'devices': 4 // number, 'flags': ()}
    processes = []
    for host in range(number):
        given = common | (last if last and host == number - 1 else {})
        own = (*hosts, f'--process_id={host}', *given.pop('flags'))
        where = [given.pop(name) for name in ('workdir', 'data_dir', 'devices')]
        processes.append(start(*where, *own, **given))
    return processes


def finish(processes, *codes, seconds=300):
    """Returns the outputs and the errors; all processes must exit with one of `codes`."""
    end = time.monotonic() + seconds
    try:
        outputs = [process.communicate(timeout=end - time.monotonic()) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert {process.returncode for process in processes} <= set(codes), outputs
    return [output for output, _ in outputs], [errors for _, errors in outputs]


def wait_for(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read())
