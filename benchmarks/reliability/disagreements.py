"""Two hosts that disagree, or one of which fails: both must exit, for the same reason."""

import re
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from processes import RECIPE, ROOT, Start

BOUND_S = 60
ENVIRONMENT = {
    'XLA_FLAGS': '--xla_force_host_platform_device_count=1',
    'JAX_CPU_COLLECTIVES_IMPLEMENTATION': 'gloo',
}


class Case(NamedTuple):
    """What is different on the second of two hosts.

    Attributes:
      said: a pattern of what both must say.
      code: both must exit with it.
      flags: of both.
      own: flags of the second.
      variables: of the second's environment.
      max_file: bytes that a file of the second may have.
      counts: --num_processes of the two.
      elsewhere: whether the second has a workdir of its own.
      copy: whether the second runs a copy of the code with one more file.
      signal: to send to the one that waits.
      alone: the number of the host that is started, alone; -1: both.
    """

    said: str
    code: int = 2
    flags: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    variables: dict[str, str] = {}
    max_file: int | None = None
    counts: tuple[int, int] = (2, 2)
    elsewhere: bool = False
    copy: bool = False
    signal: int | None = None
    alone: int = -1


def _field(name: str, value: str, said: str = '') -> Case:
    return Case(f'config.{name} is .* on host 0 and {said or value} on host 1', own=(
        f'--config.{name}={value}',
    ))  # fmt: skip


_SIGNALS = {'SIGTERM': signal.SIGTERM, 'Ctrl-C': signal.SIGINT, 'SIGHUP': signal.SIGHUP}
_FAR = ('--config.num_train_steps=100000', '--config.eval_every_steps=100000')

CASES = {
    'learning rate': _field('optimizer.learning_rate', '0.5'),
    'seed': _field('seed', '7'),
    'half the steps': _field('num_train_steps', '60'),
    'batch size': _field('batch_size', '32'),
    'steps between checkpoints': _field('checkpoint_every_steps', '7'),
    'steps between log lines': _field('log_every_steps', '7'),
    'evaluation batch size': _field('eval_batch_size', '16'),
    'network': _field('model.name', 'resnet20', "'resnet20'"),
    'dtype': _field('dtype', 'bfloat16', "'bfloat16'"),
    'train and --mode=eval': Case('the command is train on host 0', own=('--mode=eval',)),
    'code': Case('the code of ssanet_jax is .* on host 0 and .* on host 1', copy=True),
    'JAX_ENABLE_X64': Case('jax_enable_x64 is', variables={'JAX_ENABLE_X64': '1'}),
    'random generator of JAX': Case(
        'jax_default_prng_impl is', variables={'JAX_DEFAULT_PRNG_IMPL': 'rbg'}
    ),
    'precision of JAX': Case(
        'jax_default_matmul_precision is', variables={'JAX_DEFAULT_MATMUL_PRECISION': 'float32'}
    ),
    'number of devices': Case(
        'the devices is 1 x cpu on host 0 and 2 x cpu on host 1',
        variables={'XLA_FLAGS': '--xla_force_host_platform_device_count=2'},
    ),
    'workdir': Case('is not the folder that host 0 sees', elsewhere=True),
    'a larger --num_processes': Case(
        '--num_processes is 2 on host 0 and 3 on host 1', counts=(2, 3)
    ),
    'a smaller --num_processes': Case(
        '--num_processes is 3 on host 0 and 2 on host 1', counts=(3, 2)
    ),
    'a checkpoint that one host cannot write': Case(
        'The checkpoint of step 20 .* could not be written', 74, flags=_FAR, max_file=64
    ),
    **{
        f'{name} to the first, waiting': Case('Stopped by SIG', 75, signal=number, alone=0)
        for name, number in _SIGNALS.items()
    },
    **{
        f'{name} to the second, waiting': Case('Stopped by SIG', 75, signal=number, alone=1)
        for name, number in _SIGNALS.items()
    },
}  # fmt: skip


def disagree(name: str, folder: Path) -> dict[str, Any]:
    """Starts the hosts of a case in `folder`; returns a record of how they ended."""
    case, workdir = CASES[name], folder / re.sub(r'\W+', '_', name)
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    common = (*RECIPE, f'--coordinator_address=127.0.0.1:{port}', *case.flags)
    hosts = []
    for index in (0, 1) if case.alone < 0 else (case.alone,):
        own = case.own if index else ()
        where = folder / 'elsewhere' if index and case.elsewhere else workdir
        numbers = (f'--process_id={index}', f'--num_processes={case.counts[index]}')
        options = _of_second(case, folder) if index else {'environment': ENVIRONMENT}
        hosts.append(Start(where, *common, *numbers, *own, **options))
    try:
        if case.signal:
            time.sleep(12)  # it is waiting by then
            hosts[0].process.send_signal(case.signal)
        return _record(name, case, hosts)
    finally:
        for host in hosts:
            host.kill()


def _of_second(case: Case, folder: Path) -> dict[str, Any]:
    limit: Callable[[], None] | None = None
    if case.max_file:
        limit = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (case.max_file, case.max_file))
    root = ROOT
    if case.copy:
        root = folder / 'copy'
        for name in ('ssanet_jax', 'configs'):
            shutil.copytree(ROOT / name, root / name)
        shutil.copy(ROOT / 'main.py', root)
        (root / 'ssanet_jax' / 'extra.py').touch()
    return {'environment': ENVIRONMENT | case.variables, 'limit': limit, 'root': root}


def _record(name: str, case: Case, hosts: list[Start]) -> dict[str, Any]:
    codes = [host.finish(BOUND_S) for host in hosts]
    said = [host.last_words for host in hosts]
    problems = []
    if set(codes) != {case.code}:
        problems.append(f'{name}: ended with {codes}: {said}')
    problems += [f'{name}: host said {text!r}' for text in said if not re.search(case.said, text)]
    if any('Traceback' in host.errors for host in hosts):
        problems.append(f'{name}: printed a traceback')
    return {
        'tried': name,
        'exit_codes': codes,
        'seconds': [host.seconds for host in hosts],
        'said': said[-1],
        'problems': problems,
    }
