"""Reads the text of a scheduled program: memory traffic, collectives between devices, cycles."""

import math
import re
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ssanet_jax.analysis.hlo import (
    NO_TRAFFIC,
    Instruction,
    array_bytes,
    computations,
    entry_name,
)

_SLICES = {'slice', 'dynamic-slice', 'gather'}
_COLLECTIVES = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
)


class Collective(NamedTuple):
    """One collective between devices.

    Attributes:
      kind: 'all-reduce', 'all-gather', ...
      bytes: size of its result on one device.
      group_size: number of devices that take part in one group.
      overlapped: number of operations scheduled between its start and its end; None if the
        device waits for it.
    """

    kind: str
    bytes: int
    group_size: int
    overlapped: int | None


def collectives(text: str, num_devices: int) -> list[Collective]:
    """The collectives of one call, in order; `text` is `compiled.as_text()`.

    Args:
      text: of the scheduled program of one device.
      num_devices: that run it; a group without a list of devices has them all.
    """
    bodies = computations(text)
    runs = _runs(bodies)
    found: list[Collective] = []
    for name, body in bodies.items():
        found += _collectives(body, num_devices) * runs[name]
    return found


def _collectives(operations: Sequence[Instruction], num_devices: int) -> list[Collective]:
    found: list[Collective] = []
    started: dict[str, tuple[int, int]] = {}  # name: index in `found`, operations before it
    busy = 0
    for operation in operations:
        kind = operation.kind.removesuffix('-start')
        if kind in _COLLECTIVES:
            if operation.kind.endswith('-start') and '"is_sync":true' not in operation.rest:
                started[operation.name] = len(found), busy
            found.append(_collective(operation, kind, num_devices))
        elif operation.kind.endswith('-done'):
            for name in started.keys() & set(operation.operands):
                index, before = started.pop(name)
                found[index] = found[index]._replace(overlapped=busy - before)
        elif operation.kind not in NO_TRAFFIC:
            busy += 1
    return found


def _runs(bodies: dict[str, list[Instruction]]) -> dict[str, int]:
    """How often one call runs each computation; once if a loop's length is not known."""
    runs = dict.fromkeys(bodies, 1)
    for name in reversed(bodies):  # callers are after what they call
        for operation in bodies[name]:
            for called in re.findall(r'=%?([\w.\-]+)', operation.rest):
                if called in runs:
                    runs[called] = runs[name] * _trips(operation)
    return runs


def _trips(operation: Instruction) -> int:
    """Iterations of a loop; 1 for other operations, and if they are not known."""
    count = re.search(r'"known_trip_count":\{"n":"(\d+)"', operation.rest)
    return int(count[1]) if count else 1


def _collective(operation: Instruction, kind: str, num_devices: int) -> Collective:
    size = sum(_results(operation, list(array_bytes(operation.shape))))
    return Collective(kind, size, _group_size(operation.rest, num_devices), None)


def _results(operation: Instruction, sizes: list[int]) -> list[int]:
    """Those of the sizes in an operation's shape that are results; a start has others too."""
    count = len(operation.operands)
    if operation.kind == 'copy-start':  # (copy, source, context)
        return sizes[:1]
    if operation.kind == 'async-start':  # ((operands), slice, context)
        return sizes[count : count + 1]
    if operation.kind.endswith('-start') and operation.kind != 'all-reduce-start':
        return sizes[count : 2 * count]  # operands, results, contexts
    return sizes


def _group_size(rest: str, num_devices: int) -> int:
    """Devices of a group: '{{0,1},{2,3}}' and '[2,2]<=[4]' have 2, '{}' has all."""
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
        return len(match[1].split(','))
    return num_devices


def estimated_cycles(text: str) -> int | None:
    """Sum of the cycles that the TPU's compiler estimates for each operation; None without any."""
    bodies = computations(text)
    runs = _runs(bodies)
    cycles = [
        int(number) * runs[name]
        for name, body in bodies.items()
        for operation in body
        for number in re.findall(r'"estimated_cycles":"(\d+)"', operation.rest)
    ]
    return sum(cycles) if cycles else None


def memory_traffic(text: str, cache: int = 0) -> int:
    """Bytes that one call must move between the device and its memory.

    Counts the arrays that the scheduled operations read and write, except those in a TPU's fast
    memory. An operation that reads slices of an array counts those. A cache saves as much as it
    can with the best choice of what it keeps from one operation to the next; from one iteration of
    a loop to the next it keeps nothing, which may count up to twice its size too much.

    Args:
      text: `compiled.as_text()` of a scheduled program.
      cache: bytes that the device's cache holds.
    """
    accesses = _accesses(text)
    if not cache:
        return sum(sum(a.reads.values()) + sum(a.writes.values()) for a in accesses)
    return max(0, _least_reads(accesses, cache) + _least_writes(accesses, cache) - cache)


class _Access(NamedTuple):
    """Bytes in memory that one operation reads and writes, by the names of the arrays."""

    reads: dict[str, int]
    writes: dict[str, int]


def _accesses(text: str) -> list[_Access]:
    """The accesses of the operations that one call runs, in order."""
    return _accesses_of(entry_name(text), computations(text))


def _accesses_of(computation: str, bodies: Mapping[str, list[Instruction]]) -> list[_Access]:
    sizes: dict[str, int] = {}
    origin: dict[str, str] = {}  # of names for the array of another operation
    accesses = []
    for operation in bodies[computation]:
        name, kind, operands = operation.name, operation.kind, operation.operands
        written = list(array_bytes(operation.shape, memory_only=True))
        sizes[name] = sum(written)
        if kind == 'bitcast' or kind.endswith('-done'):
            origin[name] = origin.get(operands[0], operands[0])
        elif kind == 'get-tuple-element':
            (index,) = re.findall(r'index=(\d+)', operation.rest)
            origin[name] = f'{origin.get(operands[0], operands[0])}#{index}'
        elif kind == 'while' and (body := re.search(r'body=%?([\w.\-]+)', operation.rest)):
            accesses += _accesses_of(body[1], bodies) * _trips(operation)
        elif kind not in NO_TRAFFIC:
            reads: dict[str, int] = {}
            for number, operand in enumerate(operands):
                array = origin.get(operand, operand)
                size = _bytes_read(operation, number, sizes.get(operand, 0), bodies)
                reads[array] = max(size, reads.get(array, 0))
            accesses.append(_Access(reads, _writes(operation, written)))
    return accesses


def _writes(operation: Instruction, sizes: list[int]) -> dict[str, int]:
    """Bytes of each result by its name, NAME#INDEX in a tuple."""
    name, results = operation.name, _results(operation, sizes)
    starts = operation.kind.endswith('-start')
    if not operation.shape.startswith('(') or (starts and len(results) == 1):
        return {name: sum(results)}
    return {f'{name}#{index}': size for index, size in enumerate(results)}


def _least_reads(accesses: Sequence[_Access], cache: int) -> int:
    """Bytes read from memory if the cache keeps what is used soonest, which is best (Belady)."""
    uses: dict[str, deque[int]] = defaultdict(deque)
    for step, access in enumerate(accesses):
        for array in access.reads:
            uses[array].append(step)
    cached: dict[str, int] = {}
    total = 0
    for access in accesses:
        for array, size in access.reads.items():
            total += max(0, size - cached.get(array, 0))
            uses[array].popleft()
            cached[array] = max(size, cached.get(array, 0))
        cached |= access.writes
        kept, left = {}, cache
        for array in sorted((a for a in cached if uses[a]), key=lambda a: uses[a][0]):
            kept[array] = min(cached[array], left)
            left -= kept[array]
        cached = {array: size for array, size in kept.items() if size}
    return total


def _least_writes(accesses: Sequence[_Access], cache: int) -> int:
    """Bytes written to memory if the cache keeps what is soonest used for the last time."""
    last = {a: step for step, access in enumerate(accesses) for a in access.reads}
    unwritten: dict[str, int] = {}
    total = 0
    for step, access in enumerate(accesses):
        unwritten |= access.writes
        # What nobody reads is a result of the program.
        alive = {a: size for a, size in unwritten.items() if last.get(a, math.inf) > step}
        excess = sum(alive.values()) - cache
        for array in sorted(alive, key=lambda a: -last.get(a, math.inf)):
            if excess <= 0:
                break
            dropped = min(alive[array], excess)
            alive[array] -= dropped
            total += dropped
            excess -= dropped
        unwritten = {a: size for a, size in alive.items() if size}
    return total


def _bytes_read(
    operation: Instruction,
    number: int,
    size: int,
    bodies: Mapping[str, list[Instruction]],
) -> int:
    """Bytes that an operation reads of its operand `number`, an array of `size` bytes."""
    if operation.kind == 'async-start':  # moves a slice in the background
        return min(size, list(array_bytes(operation.shape))[len(operation.operands)])
    if operation.kind in _SLICES and number == 0:
        return min(size, sum(array_bytes(operation.shape)))
    called = re.search(r'calls=%?([\w.\-]+)', operation.rest)
    if not size or operation.kind != 'fusion' or not called:
        return size
    body = bodies.get(called[1], [])
    aliases = {o.name for o in body if o.kind == 'parameter' and o.operands == [str(number)]}
    read = 0
    for inner in body:
        if aliases.isdisjoint(inner.operands):
            continue
        if inner.kind == 'bitcast':
            aliases.add(inner.name)
        elif inner.kind in _SLICES and inner.operands[0] in aliases:
            read += sum(array_bytes(inner.shape))
        else:
            return size
    return min(size, read)
