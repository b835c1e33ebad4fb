"""Hosts that disagree, or cannot go on, end before a minute with one reason, in two and four."""

import functools
import re
import shutil
import signal
import socket
import time

import jax
import numpy as np
import pytest

from ssanet_jax import create_model, weights
from tests import fabricate
from tests.helpers import ROOT
from tests.host_processes import finish, free_port, start, start_hosts, wait_for

BOUND_S = 60
pytestmark = pytest.mark.slow


# What the last host has of its own, flags of all hosts, and the difference that all report.


def other_config(folder):
    different = 'config.optimizer.learning_rate is 0.001 on {} and 0.5 on {}. Start'
    return {'flags': ['--config.optimizer.learning_rate=0.5']}, [], different


def other_length(folder):
    different = 'config.num_train_steps is 120 on {} and 60 on {}. Start'
    return {'flags': ['--config.num_train_steps=60']}, [], different


def other_code(folder):
    shutil.copytree(ROOT / 'ssanet_jax', folder / 'ssanet_jax')
    shutil.copytree(ROOT / 'configs', folder / 'configs')
    shutil.copy(ROOT / 'main.py', folder)
    with (folder / 'ssanet_jax' / 'layers' / '__init__.py').open('a') as file:
        file.write('# a change\n')
    own = {'root': folder, 'PYTHONPATH': str(folder)}
    return own, [], r'the code of ssanet_jax is [\d.]+\S* \(\w+\) on {} and [\d.]+\S* \(\w+\) on {}'


def other_data(folder):
    for name, number in (('all', 9), ('last', 8)):
        fabricate.image_folder(folder / name, per_class=number)
    flags = ['--config.dataset.name=folder', '--config.dataset.eval_split=validation']
    where = f'--config.dataset.data_dir={folder}/{{}}'
    different = 'the number of training images is 27 on {} and 24 on {}'
    return {'flags': [where.format('last')]}, [*flags, where.format('all')], different


def other_weights(folder):
    model = create_model('ssa_resnet8', num_classes=10)
    for name, seed in (('all', 0), ('last', 1)):
        variables = jax.jit(functools.partial(model.init, train=False))(
            jax.random.key(seed), np.zeros((1, 8, 8, 3), np.float32)
        )
        weights.save(folder / f'{name}.safetensors', weights.to_arrays(variables, model))
    flag = f'--config.init.weights={folder}/{{}}.safetensors'
    different = r'the checksum of params/\S+ is \w+ on {} and \w+ on {}'
    return {'flags': [flag.format('last')]}, [flag.format('all')], different


def other_folder(folder):
    return {'workdir': folder / 'own'}, [], 'own is not the folder that host 0 sees'


def other_command(folder):
    return {'flags': ['--mode=eval']}, [], 'the command is train on {} and evaluate best on {}'


def other_precision(folder):
    return {'JAX_ENABLE_X64': '1'}, [], 'jax_enable_x64 is False on {} and True on {}'


def other_devices(folder):
    return {'devices': 3}, [], 'the devices is 2 x cpu on {} and 3 x cpu on {}'


OF_TWO_AND_FOUR = (
    other_config, other_length, other_code, other_data, other_weights, other_folder
)  # fmt: skip


@pytest.mark.parametrize(
    ('number', 'case'),
    [(number, case) for number in (2, 4) for case in OF_TWO_AND_FOUR]
    + [(2, case) for case in (other_command, other_precision, other_devices)],
)
def test_hosts_that_disagree_are_refused_before_the_first_step(number, case, tmp_path, data_dir):
    last, flags, different = case(tmp_path)
    workdir = tmp_path / 'run'
    processes = start_hosts(number, workdir, data_dir, *flags, last=last)
    printed, errors = finish(processes, 2, seconds=BOUND_S)
    others = 'host 0' if number == 2 else 'hosts 0, 1, 2'
    for text in errors:
        assert text.count('main.py: ') == 1
        assert 'Traceback' not in text
        (line,) = (line for line in text.splitlines() if line.startswith('main.py: '))
        assert re.search(different.format(others, f'host {number - 1}'), line)
    assert 'step' not in printed[0]
    assert not (workdir / 'config.json').exists()


@pytest.mark.parametrize('counts', [(2, 3), (3, 2), (4, 4, 4, 5)])
def test_hosts_that_count_differently_are_refused(counts, tmp_path, data_dir):
    address = f'--coordinator_address=127.0.0.1:{free_port()}'
    processes = [
        start(tmp_path, data_dir, 1, address, f'--num_processes={count}', f'--process_id={host}')
        for host, count in enumerate(counts)
    ]
    _, errors = finish(processes, 2, seconds=BOUND_S)
    last = len(counts) - 1
    reason = f'--num_processes is {counts[0]} on host 0 and {counts[-1]} on host {last}.'
    assert all(text.count('main.py: ') == 1 and reason in text for text in errors)


def test_a_port_that_is_taken_is_one_line(tmp_path, data_dir):
    with socket.create_server(('', 0)) as taken:
        port = taken.getsockname()[1]
        where = [f'--coordinator_address=127.0.0.1:{port}', '--num_processes=2', '--process_id=0']
        _, errors = finish([start(tmp_path, data_dir, 1, *where)], 2, seconds=BOUND_S)
    (line,) = errors[0].splitlines()
    assert line.startswith(f'main.py: --coordinator_address: port {port} cannot be opened here: ')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize('host', [0, 1])
def test_a_signal_ends_a_host_that_waits_for_another(host, number, tmp_path, data_dir):
    port = free_port()
    where = [f'--coordinator_address=127.0.0.1:{port}', '--num_processes=2']
    if host == 0:
        process = start(tmp_path, data_dir, 1, *where, '--process_id=0')
        while True:
            try:
                socket.create_connection(('127.0.0.1', port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None
                time.sleep(0.1)
    else:
        with socket.create_server(('127.0.0.1', port)) as server:
            process = start(tmp_path, data_dir, 1, *where, '--process_id=1')
            server.accept()[0].close()
    process.send_signal(number)
    _, errors = finish([process], 75, seconds=5)
    assert errors == [
        f'main.py: Stopped by {number.name}. Saved files are intact; run the same command to '
        'resume.\n'
    ]


def patched(code):
    """Arguments of `start` for main.py after some code."""
    code = f'import runpy, sys, time\n{code}\nsys.argv.pop(0)\n'
    return ['-c', f'{code}runpy.run_path("main.py", run_name="__main__")', 'main.py']


def assert_all_end(processes, code, reason, seconds, of=1):
    """All processes must end in time with the code and the reason of one of them."""
    _, errors = finish(processes, code, seconds=seconds)
    for host, text in enumerate(errors):
        (line,) = (line for line in text.splitlines() if line.startswith('main.py: '))
        prefix = 'main.py: ' if host == of else f'main.py: Host {of}: '
        assert line.startswith(prefix + reason)


LATE = """
from ssanet_jax.training.multihost import agreement
agreement.check_same_data = lambda info: (print("late", flush=True), time.sleep(600))
"""


def test_a_signal_ends_all_hosts_while_one_waits_at_a_barrier(tmp_path, data_dir):
    processes = start_hosts(2, tmp_path, data_dir, last={'program': patched(LATE)})
    wait_for(processes[1], 'late')
    time.sleep(3)  # the first host is at the barrier by then
    processes[0].send_signal(signal.SIGTERM)
    reason = 'Stopped by SIGTERM. Saved files are intact; run the same command to resume.'
    assert_all_end(processes, 75, reason, seconds=20, of=0)


def test_a_host_that_does_not_come_to_a_barrier_is_named_by_all(tmp_path, data_dir):
    short = 'from ssanet_jax.training.multihost import hosts\nhosts.WAIT_TIMEOUT_S = 20'
    processes = start_hosts(
        2, tmp_path, data_dir, program=patched(short), last={'program': patched(LATE)}
    )
    reason = 'Waited 20 s for the dataset of host 1. Its own log says what it was doing; start all'
    assert_all_end(processes, 69, reason, seconds=BOUND_S, of=0)


SMALL_FILES = 'import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))'


def test_a_host_that_cannot_write_its_part_of_a_checkpoint_ends_all(tmp_path, data_dir):
    """The size of its files is limited; the next save, which would notice, is far away."""
    flags = ('--config.checkpoint_every_steps=10', '--config.num_train_steps=100000')
    flags += ('--config.eval_every_steps=100000',)
    processes = start_hosts(2, tmp_path, data_dir, *flags, last={'program': patched(SMALL_FILES)})
    wait_for(processes[0], 'step 10/100000  train')
    reason = f'The checkpoint of step 10 in {tmp_path}/checkpoints could not be written: '
    assert_all_end(processes, 74, reason, seconds=BOUND_S)


def test_a_second_signal_ends_a_host_whose_other_hangs(tmp_path, data_dir):
    processes = start_hosts(2, tmp_path, data_dir, '--config.num_train_steps=100000')
    wait_for(processes[0], 'step 20/100000  train')
    processes[1].send_signal(signal.SIGSTOP)
    time.sleep(2)
    for _ in range(2):
        processes[0].send_signal(signal.SIGTERM)
        time.sleep(1)
    try:
        _, errors = finish(processes[:1], 128 + signal.SIGTERM, seconds=30)
    finally:
        processes[1].kill()
        processes[1].communicate()
    assert 'Second signal (SIGTERM): stopped at once, nothing more saved.' in errors[0]


def test_an_evaluation_of_different_checkpoints_is_refused(tmp_path, data_dir):
    finish([start(tmp_path / 'run', data_dir, 4, '--config.num_train_steps=30')], 0)
    command = ('--config.num_train_steps=30', '--mode=eval')
    last = {'flags': ['--checkpoint=latest']}
    processes = start_hosts(2, tmp_path / 'run', data_dir, *command, last=last)
    _, errors = finish(processes, 2, seconds=BOUND_S)
    assert all('the command is evaluate best on host 0 and evaluate latest' in e for e in errors)
