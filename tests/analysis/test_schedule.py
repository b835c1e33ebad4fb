"""Collectives, memory traffic and cycles of compiled programs."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from ssanet_jax.analysis.schedule import (
    Collective,
    _accesses,
    collectives,
    estimated_cycles,
    memory_traffic,
)
from tests.helpers import mesh_of


def compiled_text(f, *arguments):
    return jax.jit(f).lower(*arguments).compile().as_text()


def test_collectives_of_a_program_for_eight_devices():
    def f(x):
        pairs = [[0, 1], [2, 3], [4, 5], [6, 7]]
        return jax.lax.psum(x, 'data', axis_index_groups=pairs), jax.lax.psum(x[:3], 'data')

    mapped = jax.shard_map(f, mesh=mesh_of(8), in_specs=P('data'), out_specs=P(), check_vma=False)
    found = collectives(compiled_text(mapped, jnp.ones((8 * 16, 4))), 8)
    assert sorted(found, key=lambda e: e.bytes) == [
        Collective('all-reduce', bytes=4 * 3 * 4, group_size=8, overlapped=None),
        Collective('all-reduce', bytes=4 * 16 * 4, group_size=2, overlapped=None),
    ]


OVERLAPPED = """HloModule jit_train, is_scheduled=true

%body (param_0: f32[64]) -> f32[64] {
  %param_0 = f32[64]{0} parameter(0)
  ROOT %negate = f32[64]{0} negate(%param_0)
}

%fused_slice (param_0: f32[64]) -> f32[4] {
  %param_0.1 = f32[64]{0} parameter(0)
  %bitcast = f32[64]{0} bitcast(%param_0.1)
  ROOT %slice = f32[4]{0} slice(%bitcast), slice={[0:4]}
}

ENTRY %main (a: f32[64], b: f32[8,64]) -> f32[4] {
  %a = f32[64]{0} parameter(0)
  %b = f32[8,64]{1,0:T(8,128)} parameter(1)
  %all-reduce-start = f32[64]{0} all-reduce-start(%a), replica_groups=[2,8]<=[16], to_apply=%add
  %copy-start = (f32[8,64]{1,0:T(8,128)S(1)}, f32[8,64]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%b)
  %fusion.1 = f32[64]{0} fusion(%a), calls=%body, backend_config={"estimated_cycles":"30"}
  %copy-done = f32[8,64]{1,0:T(8,128)S(1)} copy-done(%copy-start)
  %fast = f32[8,64]{1,0:T(8,128)S(1)} negate(%copy-done), backend_config={"estimated_cycles":"12"}
  %all-reduce-done = f32[64]{0} all-reduce-done(%all-reduce-start)
  %sync = f32[64]{0} all-reduce-start(%fusion.1), replica_groups={}, backend_config={"is_sync":true}
  %sync-done = f32[64]{0} all-reduce-done(%sync)
  ROOT %fusion.2 = f32[4]{0} fusion(%all-reduce-done), kind=kLoop, calls=%fused_slice
}
"""


def test_a_collective_that_runs_beside_other_operations_is_overlapped():
    assert collectives(OVERLAPPED, 16) == [
        Collective('all-reduce', bytes=256, group_size=8, overlapped=3),
        Collective('all-reduce', bytes=256, group_size=16, overlapped=None),
    ]


# Of a program that XLA compiled for eight H100, shortened.
STARTS = """ENTRY %main (x: f32[16,4]) -> f32[2,4] {
  %x = f32[16,4]{1,0} parameter(0)
  %dot = f32[16,4]{1,0} custom-call(%x)
  %all-to-all-start = ((f32[16,4]{1,0}), f32[16,4]{1,0}) all-to-all-start(%dot)
  %all-to-all-done = f32[16,4]{1,0} all-to-all-done(%all-to-all-start)
  %reduce-scatter-start = ((f32[16,4]{1,0}), f32[2,4]{1,0}) reduce-scatter-start(%x)
  %all-gather-start = (f32[16,4]{1,0}, f32[128,4]{1,0}) all-gather-start(%x)
  %dot.1 = f32[16,4]{1,0} custom-call(%dot)
  %all-gather-done = f32[128,4]{1,0} all-gather-done(%all-gather-start)
  ROOT %reduce-scatter-done = f32[2,4]{1,0} reduce-scatter-done(%reduce-scatter-start)
}
"""


def test_a_collective_that_was_started_has_the_size_of_its_result():
    assert collectives(STARTS, 8) == [
        Collective('all-to-all', bytes=256, group_size=8, overlapped=0),
        Collective('reduce-scatter', bytes=32, group_size=8, overlapped=1),
        Collective('all-gather', bytes=2048, group_size=8, overlapped=1),
    ]
    # Five operations read and write 256 bytes but for two results, of 32 and 2,048.
    assert memory_traffic(STARTS) == 3 * (256 + 256) + (256 + 32) + (256 + 2048)


def test_memory_traffic_leaves_out_fast_memory_and_unread_parts():
    reads_and_writes = 256 + 256
    assert memory_traffic(OVERLAPPED) == sum(
        [
            reads_and_writes,  # all-reduce-start
            8 * 256,  # copy-start reads from memory, writes to fast memory
            reads_and_writes,  # fusion.1
            reads_and_writes,  # sync-start
            4 * 4 + 4 * 4,  # fusion.2 reads a slice
        ]
    )


def chain(*lines):
    """The text of a program on f32[64] arrays, 256 bytes each, from 'b = a' lines."""
    body = [f'  %{result} = f32[64]{{0}} add({read})' for result, read in lines]
    return '\n'.join(
        ['ENTRY %main (a: f32[64]) -> f32[64] {', '  %a = f32[64]{0} parameter(0)', *body, '}']
    )


@pytest.mark.parametrize(
    ('cache', 'expected'),
    [
        # Reads of a, b, a, c, d and b; writes of b, c, d and e.
        (0, 256 * (6 + 4)),
        # One array is kept between operations: b, then c, d and the result. What else is read
        # comes from memory: a twice, b, and one of a and c; b has to be written to be read again.
        # The cache may begin with a.
        (256, 256 * (3 + 1) - 256),
        (1024, 0),
    ],
)
def test_a_cache_keeps_what_is_used_soonest(cache, expected):
    text = chain(('b', '%a'), ('c', '%b, %a'), ('d', '%c'), ('e', '%d, %b'))
    assert memory_traffic(text, cache) == expected


def least_traffic(accesses, cache):
    """Of all choices of what to keep, for arrays of one unit: every set of arrays is a state."""
    last = {array: step for step, access in enumerate(accesses) for array in access.reads}
    states = {frozenset(): 0}  # of (array, whether memory lacks it): least traffic until here
    for step, (reads, writes) in enumerate(accesses):
        following = {}
        for state, traffic in states.items():
            held = dict(state)
            traffic += len(reads.keys() - held)
            held = {**dict.fromkeys(reads, False), **held, **dict.fromkeys(writes, True)}
            held = {a: lacks for a, lacks in held.items() if last.get(a, math.inf) > step}
            for size in range(min(cache, len(held)) + 1):
                for kept in itertools.combinations(sorted(held), size):
                    total = traffic + sum(held[a] for a in held.keys() - set(kept))
                    after = frozenset((a, held[a]) for a in kept)
                    following[after] = min(total, following.get(after, math.inf))
        states = following
    return min(states.values())


def test_no_choice_of_what_a_cache_keeps_beats_the_bound():
    rng = np.random.default_rng(0)
    tight = 0
    for cache in (1, 2, 3) * 8:
        names, lines = ['a'], []
        for result in 'bcdefg':
            read = rng.choice(names, min(len(names), rng.integers(1, 3)), replace=False)
            lines.append((result, ', '.join(f'%{name}' for name in read)))
            names.append(result)
        text = chain(*lines)
        bound_ = memory_traffic(text, 256 * cache)
        least = 256 * least_traffic(_accesses(text), cache)
        assert max(0, least - 256 * cache) >= bound_
        tight += max(0, least - 256 * cache) == bound_
    assert tight > 12


def test_memory_traffic_of_a_compiled_program():
    text = compiled_text(lambda x: jnp.sin(x) + 1, jnp.ones(8))
    assert memory_traffic(text) == 2 * 8 * 4


def test_each_iteration_of_a_loop_counts():
    def step(total, x):
        return total + jnp.sin(x @ x), None

    def unrolled(x):
        total = jnp.zeros((64, 64))
        for part in x:
            total, _ = step(total, part)
        return total

    x = jnp.ones((8, 64, 64))
    looped = compiled_text(lambda x: jax.lax.scan(step, jnp.zeros((64, 64)), x)[0], x)
    once = memory_traffic(looped.replace('known_trip_count', 'unknown'))
    assert memory_traffic(looped) > 7 * once
    # The loop also copies the slices that it reads.
    assert 1 < memory_traffic(looped) / memory_traffic(compiled_text(unrolled, x)) < 1.6


TUPLE = """HloModule m, is_scheduled=true

ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %both = (f32[8]{0}, f32[8]{0}) custom-call(%a)
  %first = f32[8]{0} get-tuple-element(%both), index=0
  %second = f32[8]{0} get-tuple-element(%both), index=1
  ROOT %sum = f32[8]{0} add(%first, %second)
}
"""


def test_the_elements_of_a_tuple_are_arrays_of_their_own():
    assert memory_traffic(TUPLE) == (1 + 2 + 2 + 1) * 32
    first, second = _accesses(TUPLE)
    assert second.reads == first.writes == {'both#0': 32, 'both#1': 32}


def test_cycles_are_those_that_the_compiler_estimates():
    assert estimated_cycles(OVERLAPPED) == 42
    assert estimated_cycles('ENTRY %main') is None
