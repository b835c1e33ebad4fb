"""Device types, topologies and the time bound."""

import pytest

from ssanet_jax.analysis.schedule import Collective
from ssanet_jax.errors import ConfigError
from ssanet_jax.targets import DEVICE_TYPES, find_topology
from ssanet_jax.targets.bound import Bound, bound, link_bytes

V5E = DEVICE_TYPES['v5e']


@pytest.mark.parametrize(
    ('text', 'kind', 'num_devices'),
    [
        ('v5e:4x4', 'v5e', 16),
        ('V4:2x2x2', 'v4', 8),
        ('v5p:4x4x8', 'v5p', 128),
        ('v6e:1x1', 'v6e', 1),
        ('h100x8', 'h100', 8),
        ('a100', 'a100', 1),
        ('l4', 'l4', 1),
    ],
)
def test_a_topology_has_a_device_type_and_a_number_of_devices(text, kind, num_devices):
    found, name, number = find_topology(text)
    assert (found.name, name, number) == (kind, text.lower(), num_devices)


@pytest.mark.parametrize(
    ('text', 'nearest'),
    [
        ('v5e:3x5', 'v5e:4x4, v5e:2x4'),  # 16 and 8 devices; 15 are asked for
        ('h100x16', 'h100x8, h100x4'),
        ('v6e', 'v6e:1x1, v6e:2x2'),
        ('h10', 'h100'),
    ],
)
def test_a_topology_that_does_not_exist_is_refused_with_the_nearest(text, nearest):
    with pytest.raises(ConfigError, match=f'{text} does not exist; nearest: {nearest}') as raised:
        find_topology(text)
    assert '\n' not in str(raised.value)


def test_every_device_type_has_figures_with_a_source():
    for kind in DEVICE_TYPES.values():
        assert kind.source
        assert 1e9 < kind.link_bandwidth < kind.bandwidth < kind.peak_flops
        assert 8e9 < kind.usable_memory <= kind.memory < 1e12


def test_jax_allocates_the_fraction_of_memory_that_is_set(monkeypatch):
    kind = find_topology('h100')[0]
    monkeypatch.delenv('XLA_CLIENT_MEM_FRACTION', raising=False)
    monkeypatch.setenv('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.5')
    assert kind.usable_memory == 0.5 * kind.memory
    monkeypatch.setenv('XLA_CLIENT_MEM_FRACTION', '0.9')
    assert kind.usable_memory == 0.9 * kind.memory
    monkeypatch.delenv('XLA_PYTHON_CLIENT_MEM_FRACTION')
    monkeypatch.setenv('XLA_CLIENT_MEM_FRACTION', '')
    assert kind.usable_memory == 0.75 * kind.memory


def test_a_bound_is_the_slowest_of_compute_memory_and_interconnect():
    """197 TFLOP/s, 819 GB/s, 200 GB/s; an all-reduce of 16 sends 2 x 15/16 of its bytes."""
    collective = Collective('all-reduce', bytes=160 * 10**9, group_size=16, overlapped=None)
    limit = bound(V5E, flops=2 * 197e12, traffic=3 * 819e9, collectives=[collective])
    assert limit == pytest.approx(Bound(compute=2, memory=3, interconnect=1.5))
    assert (limit.seconds, limit.limited_by) == (pytest.approx(3), 'memory')


@pytest.mark.parametrize(
    ('kind', 'switch', 'expected'),
    [
        ('all-reduce', False, 2 * 3 / 4 * 100),
        ('all-reduce', True, 100),
        ('all-gather', False, 3 / 4 * 100),
        ('reduce-scatter', False, 3 * 100),
        ('collective-permute', False, 100),
    ],
)
def test_bytes_that_cross_the_links(kind, switch, expected):
    collective = Collective(kind, bytes=100, group_size=4, overlapped=None)
    assert link_bytes(collective, switch) == expected
