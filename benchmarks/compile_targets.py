"""Devices to compile for without having them, as descriptions for their compilers."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Set before JAX is imported, so that libtpu queries no metadata server and XLA does not autotune.
ENVIRONMENT = {
    'JAX_PLATFORMS': 'cpu',
    'TPU_SKIP_MDS_QUERY': '1',
    'TPU_WORKER_HOSTNAMES': 'localhost',
    'ALLOW_MULTIPLE_LIBTPU_LOAD': '1',
    'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_gpu_autotune_level=0',
}

# An xla.GpuTargetConfigProto. Source: NVIDIA H100 Tensor Core GPU architecture whitepaper, SXM5.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84942979072
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclass(frozen=True)
class Target:
    """A device to compile for.

    Attributes:
      requires: the package that contains its compiler.
      batch_size: images per device.
      devices: makes the descriptions of one or more of them.
    """

    requires: str
    batch_size: int
    devices: Callable[[], list[Any]]


def _tpu(topology: str) -> Callable[[], list[Any]]:
    from jax.experimental import topologies

    return lambda: topologies.get_topology_desc(topology, 'tpu').devices


def _nvidia(config: str) -> Callable[[], list[Any]]:
    from jax.experimental import topologies

    return lambda: (
        topologies.get_topology_desc('any', 'cuda', target_config=config, topology='1x1x1').devices
    )


def targets() -> dict[str, Target]:
    """All targets by name."""
    return {
        'v5e': Target('libtpu', 128, _tpu('v5e:2x4')),
        'h100': Target('jax-cuda13-plugin', 256, _nvidia(_H100)),
    }
