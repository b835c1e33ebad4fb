"""Google's TPUs. To add one, add an entry to `TPUS`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import jax

from ssanet_jax.targets.device_type import DeviceType

_DOCS = 'https://docs.cloud.google.com/tpu/docs'
_FLAT = ('1x1', '2x2', '2x4', '4x4', '4x8', '8x8', '8x16', '16x16')
_SOLID = ('2x2x1', '2x2x2', '2x2x4', '2x4x4', '4x4x4', '4x4x8', '4x8x8', '8x8x8', '8x8x16')


@dataclass(frozen=True, kw_only=True)
class Tpu(DeviceType):
    """A TPU; one chip is one device.

    Attributes:
      shapes: slices that Google Cloud offers, in chips.
      options: of libtpu's topology.
    """

    compiler: ClassVar[str] = 'libtpu'
    extra: ClassVar[str] = 'preflight-tpu'
    shapes: tuple[str, ...]
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def topologies(self) -> Mapping[str, int]:
        return {f'{self.name}:{s}': math.prod(map(int, s.split('x'))) for s in self.shapes}

    def devices(self, topology: str) -> list[jax.Device]:
        from jax.experimental import topologies

        options: dict[str, object] = dict(self.options)
        if self.topologies[topology] == 1:
            options['chips_per_host_bounds'] = (1, 1, 1)
        return topologies.get_topology_desc(topology, 'tpu', **options).devices


# Links: half of the bidirectional bandwidth per chip.
TPUS = [
    Tpu(
        name='v4',
        memory=32 * 2**30,
        bandwidth=1.2e12,
        peak_flops=275e12,
        link_bandwidth=300e9,
        shapes=(*_SOLID, '8x16x16'),
        options={'chip_config_name': 'megacore'},
        source=f'{_DOCS}/v4; links, 6 of 50 GB/s: https://arxiv.org/abs/2304.01433',
    ),
    Tpu(
        name='v5e',
        memory=16 * 2**30,
        bandwidth=819e9,  # as published first; the page now rounds it to 800
        peak_flops=197e12,
        link_bandwidth=200e9,
        shapes=_FLAT,
        source=f'{_DOCS}/v5e',
    ),
    Tpu(
        name='v5p',
        memory=95 * 2**30,
        bandwidth=2765e9,
        peak_flops=459e12,
        link_bandwidth=600e9,
        shapes=(*_SOLID, '8x16x16', '16x16x16', '16x16x24'),
        source=f'{_DOCS}/v5p',
    ),
    Tpu(
        name='v6e',
        memory=32 * 2**30,
        bandwidth=1640e9,  # as published first; the page now rounds it to 1600
        peak_flops=918e12,
        link_bandwidth=400e9,
        shapes=_FLAT,
        source=f'{_DOCS}/v6e',
    ),
]
