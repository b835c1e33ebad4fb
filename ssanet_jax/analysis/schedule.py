"""Reads the text of a scheduled program: memory traffic, exchanges between devices, cycles."""

import math
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

_ARRAY = re.compile(r'\b(pred|[a-z]+\d+)\w*\[([\d,]*)\](?:\{([^}]*)\})?')
_OPERATION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(([^)]*)\)(.*)')
_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
_NO_TRAFFIC = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant', 'after-all'}
_SLICES = {'slice', 'dynamic-slice', 'gather'}
_EXCHANGES = (
    'all-reduce',
    'all-gather',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
)


class Exchange(NamedTuple):
    """One exchange between devices.

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


class _Operation(NamedTuple):
    name: str
    shape: str
    kind: str
    operands: list[str]
    rest: str


def exchanges(text: str, num_devices: int) -> list[Exchange]:
    """The exchanges of one call, in order; `text` is `compiled.as_text()`.

    Args:
      text: of the scheduled program of one device.
      num_devices: that run it; a group without a list of devices has them all.
    """
    found: list[Exchange] = []
    for operations in _computations(text).values():
        started: dict[str, tuple[int, int]] = {}  # name: index in `found`, operations before it
        busy = 0
        for operation in operations:
            kind = operation.kind.removesuffix('-start')
            if kind in _EXCHANGES:
                if operation.kind.endswith('-start') and '"is_sync":true' not in operation.rest:
                    started[operation.name] = len(found), busy
                found.append(_exchange(operation, kind, num_devices))
            elif operation.kind.endswith('-done'):
                for name in started.keys() & set(operation.operands):
                    index, before = started.pop(name)
                    found[index] = found[index]._replace(overlapped=busy - before)
            elif operation.kind not in _NO_TRAFFIC:
                busy += 1
    return found


def _exchange(operation: _Operation, kind: str, num_devices: int) -> Exchange:
    sizes = list(_sizes(operation.shape))
    if operation.kind in ('all-gather-start', 'collective-permute-start'):  # operands, results, ...
        count = len(operation.operands)
        sizes = sizes[count : 2 * count]
    return Exchange(kind, sum(sizes), _group_size(operation.rest, num_devices), None)


def _group_size(rest: str, num_devices: int) -> int:
    """Devices of a group: '{{0,1},{2,3}}' and '[2,2]<=[4]' have 2, '{}' has all."""
    if match := re.search(r'replica_groups=\[\d+,(\d+)\]', rest):
        return int(match[1])
    if match := re.search(r'replica_groups=\{\{([\d,]+)\}', rest):
        return len(match[1].split(','))
    return num_devices


def estimated_cycles(text: str) -> int | None:
    """Sum of the cycles that the TPU's compiler estimates for each operation; None without any."""
    cycles = [int(number) for number in re.findall(r'"estimated_cycles":"(\d+)"', text)]
    return sum(cycles) if cycles else None


def memory_traffic(text: str, cache: int = 0) -> int:
    """Bytes that one call must move between the device and its memory.

    Counts the arrays that the scheduled operations read and write, except those in a TPU's fast
    memory. An operation that reads slices of an array counts those.

    Args:
      text: `compiled.as_text()` of a scheduled program.
      cache: bytes of each array that may be in a cache and are not counted.
    """
    computations = _computations(text)
    entry = re.findall(r'^ENTRY %?([\w.\-]+)', text, re.MULTILINE)[-1]
    arrays: dict[str, int] = {}
    total = 0
    for operation in computations[entry]:
        in_memory = list(_sizes(operation.shape, memory_only=True))
        arrays[operation.name] = sum(in_memory)
        if operation.kind in _NO_TRAFFIC or operation.kind.endswith('-done'):
            continue
        if operation.kind == 'copy-start':  # its result lists the copy and the original
            total += sum(max(0, size - cache) for size in in_memory)
            continue
        if operation.kind == 'async-start':  # a slice moved in the background
            in_memory = in_memory[len(operation.operands) :]
            total += sum(max(0, size - cache) for size in in_memory)
            continue
        for number, operand in enumerate(operation.operands):
            size = _bytes_read(operation, number, arrays.get(operand, 0), computations)
            total += max(0, size - cache)
        total += sum(max(0, size - cache) for size in in_memory)
    return total


def _bytes_read(
    operation: _Operation,
    number: int,
    size: int,
    computations: Mapping[str, list[_Operation]],
) -> int:
    """Bytes that an operation reads of its operand `number`, an array of `size` bytes."""
    if operation.kind in _SLICES and number == 0:
        return min(size, sum(_sizes(operation.shape)))
    called = re.search(r'calls=%?([\w.\-]+)', operation.rest)
    if not size or operation.kind != 'fusion' or not called:
        return size
    body = computations.get(called[1], [])
    aliases = {o.name for o in body if o.kind == 'parameter' and o.operands == [str(number)]}
    read = 0
    for inner in body:
        if aliases.isdisjoint(inner.operands):
            continue
        if inner.kind == 'bitcast':
            aliases.add(inner.name)
        elif inner.kind in _SLICES and inner.operands[0] in aliases:
            read += sum(_sizes(inner.shape))
        else:
            return size
    return min(size, read)


def _computations(text: str) -> dict[str, list[_Operation]]:
    """The operations of each computation of a module, by its name."""
    computations: dict[str, list[_Operation]] = {}
    current: list[_Operation] = []
    for line in text.splitlines():
        if match := _OPERATION.match(line):
            name, shape, kind, operands, rest = match.groups()
            names = re.findall(r'%([\w.\-]+)', operands) or operands.split(', ')
            current.append(_Operation(name, shape, kind, names, rest))
        elif match := _COMPUTATION.match(line):
            current = computations.setdefault(match[1], [])
    return computations


def _sizes(shape: str, *, memory_only: bool = False) -> Iterator[int]:
    """Bytes of each array of 'f32[8,64]{1,0}' or of a tuple; S(1) is a TPU's fast memory."""
    for dtype, dimensions, layout in _ARRAY.findall(shape):
        if memory_only and 'S(' in layout:
            continue
        bits = 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
        yield math.prod(int(d) for d in dimensions.split(',') if d) * bits // 8
