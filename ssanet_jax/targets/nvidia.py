"""NVIDIA's GPUs, one host of them. To add one, add an entry to `GPUS`.

Peak rates are those of the datasheets without sparsity. They equal multiprocessors x operations per
clock x clock, which XLA's descriptions of the same devices give; those also confirm the memory.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import jax

from ssanet_jax.targets.device_type import DeviceType

_XLA = 'https://github.com/openxla/xla/tree/main/xla/backends/gpu/target_config/specs'
_NVIDIA = 'https://www.nvidia.com/en-us/data-center'

# An xla.GpuTargetConfigProto. No device is there to tune kernels on.
_CONFIG = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: {threads}
  shared_memory_per_block: 49152 shared_memory_per_block_optin: {shared_optin}
  shared_memory_per_core: {shared}
  core_count: {cores} fpus_per_core: {fpus} clock_rate_ghz: {clock}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth} l2_cache_size: {cache} device_memory_size: {memory}
  cuda_compute_capability {{ major: {major} minor: {minor} }}
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
device_description_str: "{description}"
"""


class Multiprocessor(NamedTuple):
    """What all GPUs of one compute capability have in common.

    Source: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#compute-capabilities

    Attributes:
      capability: compute capability, (9, 0).
      fpus: float32 units.
      threads: resident.
      shared: bytes of shared memory; since Ampere, a block can have 1 KiB less.
    """

    capability: tuple[int, int]
    fpus: int
    threads: int
    shared: int


_TURING = Multiprocessor((7, 5), fpus=64, threads=1024, shared=64 << 10)
_AMPERE = Multiprocessor((8, 0), fpus=64, threads=2048, shared=164 << 10)
_ADA = Multiprocessor((8, 9), fpus=128, threads=1536, shared=100 << 10)
_HOPPER = Multiprocessor((9, 0), fpus=128, threads=2048, shared=228 << 10)
_BLACKWELL = Multiprocessor((10, 0), fpus=128, threads=2048, shared=228 << 10)


@dataclass(frozen=True, kw_only=True)
class Gpu(DeviceType):
    """A GPU.

    Attributes:
      description: NVIDIA's name of the device.
      core: its streaming multiprocessor.
      cores: number of them.
      clock: GHz, boost.
    """

    compiler: ClassVar[str] = 'jax_cuda13_plugin'
    extra: ClassVar[str] = 'preflight-cuda'
    description: str
    core: Multiprocessor
    cores: int
    clock: float

    @property
    def topologies(self) -> Mapping[str, int]:
        return {self.name: 1, **{f'{self.name}x{n}': n for n in (1, 2, 4, 8)}}

    @property
    def usable_memory(self) -> float:
        """JAX allocates this part of the memory at the start."""
        names = ('XLA_CLIENT_MEM_FRACTION', 'XLA_PYTHON_CLIENT_MEM_FRACTION')  # the old name
        return self.memory * float(next(filter(None, map(os.environ.get, names)), '0.75'))

    def target_config(self) -> str:
        """The text of an xla.GpuTargetConfigProto."""
        core = self.core
        major, minor = core.capability
        return _CONFIG.format(
            threads=core.threads,
            shared=core.shared,
            shared_optin=core.shared - 1024 * (core.capability >= (8, 0)),
            cores=self.cores,
            fpus=core.fpus,
            clock=self.clock,
            bandwidth=int(self.bandwidth),
            cache=self.cache,
            memory=int(self.memory),
            major=major,
            minor=minor,
            description=self.description,
        )

    def devices(self, topology: str) -> list[jax.Device]:
        from jax.experimental import topologies

        shape = f'1x1x{self.topologies[topology]}'  # partitions, hosts, devices
        described = topologies.get_topology_desc(
            'any', 'cuda', target_config=self.target_config(), topology=shape
        )
        return described.devices


# Links: half of NVLink's or PCIe's total, which counts both directions.
_H100 = Gpu(
    name='h100',
    memory=84942979072,
    bandwidth=3352.32e9,
    peak_flops=989e12,
    link_bandwidth=450e9,
    description='NVIDIA H100 80GB HBM3',
    core=_HOPPER,
    cores=132,
    clock=1.98,
    cache=50 << 20,
    switch_reduces=True,
    source=f'{_NVIDIA}/h100 (SXM); {_XLA}/h100_sxm.txtpb',
)
GPUS = [
    Gpu(
        name='t4',
        memory=16e9,
        bandwidth=320e9,
        peak_flops=65e12,  # of float16; it has no bfloat16
        link_bandwidth=16e9,
        description='Tesla T4',
        core=_TURING,
        cores=40,
        clock=1.59,
        cache=4 << 20,
        source=f'{_NVIDIA}/tesla-t4',
    ),
    Gpu(
        name='l4',
        memory=24e9,
        bandwidth=300e9,
        peak_flops=121e12,
        link_bandwidth=32e9,
        description='NVIDIA L4',
        core=_ADA,
        cores=58,
        clock=2.04,
        cache=48 << 20,
        source=f'{_NVIDIA}/l4',
    ),
    Gpu(
        name='a100',
        memory=85100068864,
        bandwidth=2039.04e9,
        peak_flops=312e12,
        link_bandwidth=300e9,
        description='NVIDIA A100-SXM4-80GB',
        core=_AMPERE,
        cores=108,
        clock=1.41,
        cache=40 << 20,
        source=f'{_NVIDIA}/a100 (80GB SXM); {_XLA}/a100_sxm_80.txtpb',
    ),
    _H100,
    replace(
        _H100,
        name='h200',
        memory=151397597184,
        bandwidth=4800e9,
        description='NVIDIA H200 141GB HBM3e',
        source=f'{_NVIDIA}/h200 (SXM); {_XLA}/h200.txtpb',
    ),
    Gpu(
        name='b200',
        memory=191514411008,
        bandwidth=8000e9,  # of the datasheet; XLA's file has 7672 GB/s
        peak_flops=2250e12,
        link_bandwidth=900e9,
        description='NVIDIA B200',
        core=_BLACKWELL,
        cores=148,
        clock=1.965,
        cache=132644864,
        switch_reduces=True,
        source=f'{_NVIDIA}/dgx-b200; {_XLA}/b200.txtpb',
    ),
]
