"""The description of a kind of device: what a step's time and memory are bounded by."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax


@dataclass(frozen=True, kw_only=True)
class DeviceType(ABC):
    """One kind of device, with figures that its maker publishes.

    Attributes:
      name: as users write it, 'v5e'.
      memory: bytes on one device.
      bandwidth: bytes per second between a device and its memory.
      peak_flops: bfloat16 operations per second, without sparsity.
      link_bandwidth: bytes per second that one device sends to others, over all its links.
      source: where these figures are published.
      cache: bytes of an array that may still be in a cache when the next operation reads it.
      switch_reduces: whether the switch between the devices adds up what they send.
      compiler: the Python package that compiles for it.
      extra: the extra of this project that installs the compiler.
    """

    compiler: ClassVar[str]
    extra: ClassVar[str]
    name: str
    memory: float
    bandwidth: float
    peak_flops: float
    link_bandwidth: float
    source: str
    cache: int = 0
    switch_reduces: bool = False

    @property
    @abstractmethod
    def topologies(self) -> Mapping[str, int]:
        """The number of devices of each topology by its name, 'v5e:4x4' or 'h100x8'."""

    @property
    def usable_memory(self) -> float:
        """Bytes of one device's memory that a program can have."""
        return self.memory

    @abstractmethod
    def devices(self, topology: str) -> list[jax.Device]:
        """Descriptions of the devices, to compile for; needs the compiler."""
