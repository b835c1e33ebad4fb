"""Checks that the hosts of a run agree before its first step; does nothing on a single host."""

import hashlib
import time
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.config import flatten
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.multihost import hosts
from ssanet_jax.version import __version__

if TYPE_CHECKING:  # it imports TFDS
    from ssanet_jax.data import DatasetInfo

VISIBLE_WITHIN_S = 20  # a file of another host, on a shared file system
_PACKAGE = Path(__file__).parents[2]
_SHOWN = 3  # differences in a message
_VERSIONED = (
    'jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy',
    'simplejpeg', 'pillow', 'opencv-python-headless',
)  # fmt: skip
# Settings of JAX that change what is computed.
_JAX_SETTINGS = (
    'jax_enable_x64', 'jax_default_matmul_precision', 'jax_default_prng_impl',
    'jax_threefry_partitionable', 'jax_numpy_dtype_promotion',
)  # fmt: skip


def check_same_start(config: ConfigDict, command: str) -> None:
    """Checks that all hosts run the same command, config, code, packages and settings of JAX.

    Args:
      config: of this host.
      command: of this host, as 'train'.

    Raises:
      ConfigError: naming hosts, fields and values; or JAX's distributed service does not run.
    """
    if hosts.several():
        check_same({'the command': command, **_environment(), **_fields(config)}, 'the config')
    elif jax.process_count() > 1:  # connected by the devices alone, as on a TPU pod
        raise ConfigError(
            f'This is one of {jax.process_count()} processes; call jax.distributed.initialize() '
            'in each before anything else, so that they can be compared.'
        )


def check_same_data(info: 'DatasetInfo') -> None:
    """Checks that all hosts see the same data and have equal devices; raises ConfigError."""
    if hosts.several():
        devices = jax.local_devices()
        check_same(
            {
                'the number of hosts': jax.process_count(),
                'the devices': f'{len(devices)} x {devices[0].device_kind}',
                'the dataset': info.fingerprint,
                'the number of training images': info.num_train,
                'the number of evaluation images': info.num_eval,
                'the order of the images': info.order,
            },
            'the dataset',
        )


def check_same_state(step: int, state: Any) -> None:
    """Checks that all hosts begin at the same step with the same arrays; raises ConfigError.

    Args:
      step: to begin after.
      state: a tree of replicated arrays.
    """
    if hosts.several():
        leaves = jax.tree_util.tree_leaves_with_path(state)
        digests = {
            jax.tree_util.keystr(path, simple=True, separator='/'): _digest(leaf)
            for path, leaf in leaves
        }
        facts = {f'the checksum of {name}': digest for name, digest in digests.items()}
        check_same({'the step to start from': step, **facts}, 'the initial weights')


def check_shared_workdir(workdir: epath.Path) -> None:
    """Checks that all hosts see the workdir of the first one; call it once that has made it.

    Raises:
      ConfigError: a host does not see a file that the first one wrote.
    """
    if not hosts.several():
        return
    first = jax.process_index() == 0
    (name, *_) = hosts.exchange(f'hosts-{uuid.uuid4().hex}.partial', 'the workdir')
    path = workdir / name
    hosts.raise_on_all_hosts(lambda: path.touch() if first else None, 'the workdir')
    try:
        hosts.raise_on_all_hosts(partial(_find, path, workdir), 'the workdir')
    finally:
        if first:
            path.unlink(missing_ok=True)


def _find(path: epath.Path, workdir: epath.Path) -> None:
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while not path.exists():
        if time.monotonic() > deadline:
            raise ConfigError(
                f'--workdir={workdir} is not the folder that host 0 sees: a file that host 0 wrote '
                'there is missing here. Use a folder that all hosts share, see docs/launch.md.'
            )
        time.sleep(0.2)


def check_same(facts: Mapping[str, Any], what: str) -> None:
    """Checks that `facts` are the same on all hosts, which wait for `what`; raises ConfigError."""
    if differences := disagreements(hosts.exchange(facts, what)):
        more = f'; and {len(differences) - _SHOWN} more' if len(differences) > _SHOWN else ''
        raise ConfigError(
            f'The hosts disagree: {"; ".join(differences[:_SHOWN])}{more}. Start every host with '
            'the same command, code, packages and data.'
        )


def disagreements(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Describes each fact that differs between hosts.

    >>> disagreements([{'config.seed': 0}, {'config.seed': 7}, {'config.seed': 0}])
    ['config.seed is 0 on hosts 0, 2 and 7 on host 1']
    """
    names = dict.fromkeys(name for of_host in facts for name in of_host)
    found = []
    for name in names:
        values: dict[str, list[int]] = {}
        for host, of_host in enumerate(facts):
            values.setdefault(str(of_host.get(name, 'missing')), []).append(host)
        if len(values) > 1:
            parts = [f'{value} on {_numbers(some)}' for value, some in values.items()]
            found.append(f'{name} is {", ".join(parts[:-1])} and {parts[-1]}')
    return found


def _numbers(some: list[int]) -> str:
    listed = ', '.join(map(str, some[:4])) + (f' and {len(some) - 4} more' * (len(some) > 4))
    return f'host{"s" * (len(some) > 1)} {listed}'


def versions() -> dict[str, str]:
    """The versions of the packages that decode, compute and save."""
    return {name: metadata.version(name) for name in _VERSIONED}


def _environment() -> dict[str, Any]:
    settings = {name: str(jax.config.values[name]) for name in _JAX_SETTINGS}
    packages = {f'the version of {name}': version for name, version in versions().items()}
    return {'the code of ssanet_jax': _source(), **packages, **settings}


def _source() -> str:
    """The version of ssanet_jax and a digest of its source files."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob('*.py')):
        digest.update(path.relative_to(_PACKAGE).as_posix().encode() + b'\0' + path.read_bytes())
    return f'{__version__} ({digest.hexdigest()[:12]})'


def _fields(config: ConfigDict) -> dict[str, str]:
    return {
        f'config.{name}': repr(value)
        for name, value in flatten(config).items()
        if not FIELDS[name].per_host
    }


def _digest(leaf: jax.Array) -> str:
    array = np.asarray(leaf.addressable_data(0))
    head = f'{array.dtype}{array.shape}'.encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:12]
