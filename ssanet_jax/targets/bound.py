"""The time that no step can beat, from counts of a compiled program and a device's figures."""

from collections.abc import Iterable
from typing import NamedTuple

from ssanet_jax.analysis.schedule import Collective
from ssanet_jax.targets.device_type import DeviceType


class Bound(NamedTuple):
    """Seconds that each part of a device needs at its peak rate, if nothing else delays it."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self) -> float:
        """The time that the call cannot beat: all parts at work at once, the slowest decides."""
        return max(self)

    @property
    def limited_by(self) -> str:
        """The part that decides: 'compute', 'memory' or 'interconnect'."""
        return max(zip(self, self._fields, strict=True))[1]


def bound(
    kind: DeviceType, *, flops: float, traffic: float, collectives: Iterable[Collective]
) -> Bound:
    """The bound of one call on one device.

    Args:
      kind: of device.
      flops: that the device computes.
      traffic: bytes between the device and its memory.
      collectives: between devices.
    """
    return Bound(
        compute=flops / kind.peak_flops,
        memory=traffic / kind.bandwidth,
        interconnect=sum(link_bytes(c, kind.switch_reduces) for c in collectives)
        / kind.link_bandwidth,
    )


def link_bytes(collective: Collective, switch_reduces: bool = False) -> float:
    """Least number of bytes that a device of the group sends or receives, whichever is more.

    An all-reduce is at least a reduce-scatter and an all-gather, unless a switch adds up.
    Source: https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md

    >>> link_bytes(Collective('all-reduce', bytes=800, group_size=8, overlapped=None))
    1400.0
    """
    size, others = collective.group_size, collective.group_size - 1
    if collective.kind == 'all-reduce':
        factor = 1.0 if switch_reduces and others else 2 * others / size
    elif collective.kind == 'reduce-scatter':
        factor = float(others)
    elif collective.kind in ('all-gather', 'all-to-all'):
        factor = others / size
    else:
        factor = 1.0
    return factor * collective.bytes
