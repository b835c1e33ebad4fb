"""Devices that a program can be compiled for without being here."""

import math
import os
from collections.abc import Mapping

from ssanet_jax.errors import ConfigError, nearest
from ssanet_jax.targets.device_type import DeviceType
from ssanet_jax.targets.nvidia import GPUS
from ssanet_jax.targets.tpu import TPUS

DEVICE_TYPES: Mapping[str, DeviceType] = {kind.name: kind for kind in (*TPUS, *GPUS)}


def find_topology(text: str) -> tuple[DeviceType, str, int]:
    """Finds the topology that a user names: 'v5e:4x4', 'h100x8' or 'l4'.

    Returns:
      The device type, the name of the topology and its number of devices.

    Raises:
      ConfigError: there is none of that name; the message lists the nearest ones.

    >>> kind, name, num_devices = find_topology('v5e:4x4')
    >>> kind.name, num_devices
    ('v5e', 16)
    """
    known = {
        name: (kind, name, number)
        for kind in DEVICE_TYPES.values()
        for name, number in kind.topologies.items()
    }
    name = text.strip().lower()
    if name in known:
        return known[name]
    sizes = {key: number for key, (_, _, number) in known.items()}
    raise ConfigError(
        f'--topology={text} does not exist; nearest: {_nearest(name, sizes)}. Device types: '
        f'{", ".join(DEVICE_TYPES)}.'
    )


def _nearest(text: str, known: Mapping[str, int]) -> str:
    """Those of the same device type with about as many devices, or those spelled alike."""
    kinds = [kind for kind in DEVICE_TYPES.values() if text.startswith(kind.name)]
    if not kinds:
        return nearest(text, known)
    kind = max(kinds, key=lambda kind: len(kind.name))
    sides = [
        int(side) for side in text.removeprefix(kind.name).strip(':').split('x') if side.isdigit()
    ]
    wanted = max(1, math.prod(sides))
    names = sorted(kind.topologies, key=lambda n: abs(math.log(known[n] / wanted)))
    return ', '.join(names[:3])


def compile_environment() -> dict[str, str]:
    """Environment variables for a process that compiles for devices that are not here.

    They have to be set before the process imports JAX: its own backend is the CPU, libtpu looks
    for no TPU and shares its lock file, and XLA tunes no kernels on a GPU.
    """
    flags = f'{os.environ.get("XLA_FLAGS", "")} --xla_gpu_autotune_level=0'
    return {
        'JAX_PLATFORMS': 'cpu',
        'JAX_ENABLE_COMPILATION_CACHE': 'false',
        'TPU_SKIP_MDS_QUERY': '1',
        'TPU_WORKER_HOSTNAMES': 'localhost',
        'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
        'XLA_FLAGS': flags.strip(),
    }
