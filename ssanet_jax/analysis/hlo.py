"""Reads compiled programs: their text, and XLA's own counts of operations and memory."""

import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

_ARRAY = re.compile(r'\b(pred|[a-z]+\d+)\w*\[([\d,]*)\](?:\{([^}]*)\})?')
_INSTRUCTION = re.compile(r'\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(([^)]*)\)(.*)')
_COMPUTATION = re.compile(r'(?:ENTRY )?%?([\w.\-]+) \(.*\{$')
NO_TRAFFIC = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant', 'after-all'}


class ProgramCost(NamedTuple):
    """Counts for one device and one call; deterministic for one version of jaxlib.

    Attributes:
      flops: additions and multiplications.
      bytes_accessed: read and written by all operations after fusion, ignoring caches.
      temporaries: bytes of memory, without arguments and results.
      all_reduces: number of all-reduce operations.
      all_reduce_bytes: bytes that they reduce.
    """

    flops: float
    bytes_accessed: float
    temporaries: int
    all_reduces: int
    all_reduce_bytes: int


def program_cost(compiled: jax.stages.Compiled) -> ProgramCost:
    """Reads the counts of `jax.jit(f).lower(...).compile()`.

    >>> import jax.numpy as jnp
    >>> program = jax.jit(lambda x: x @ x).lower(jnp.ones((8, 8))).compile()
    >>> program_cost(program).all_reduces
    0
    """
    counts: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    reduced = [
        sum(array_bytes(instruction.shape))
        for body in computations(compiled.as_text() or '').values()
        for instruction in body
        if instruction.kind in ('all-reduce', 'all-reduce-start')
    ]
    return ProgramCost(
        flops=counts['flops'],
        bytes_accessed=counts['bytes accessed'],
        temporaries=memory.temp_size_in_bytes,
        all_reduces=len(reduced),
        all_reduce_bytes=sum(reduced),
    )


class Operation(NamedTuple):
    """One operation of a compiled program, usually several fused into one.

    Attributes:
      name: its origin in the traced program, 'jit(f)/.../dot_general', or ''.
      bytes_accessed: size of the arrays that it reads and writes.
    """

    name: str
    bytes_accessed: int


def operations(compiled: jax.stages.Compiled) -> list[Operation]:
    """The operations of a program that access memory, in order.

    >>> import jax.numpy as jnp
    >>> program = jax.jit(lambda x: jnp.sin(x) + 1).lower(jnp.ones(8)).compile()
    >>> sum(operation.bytes_accessed for operation in operations(program))
    64
    """
    text = compiled.as_text() or ''
    sizes: dict[str, int] = {}
    accessing = []
    for instruction in computations(text)[entry_name(text)]:
        name, shape, kind, operands, rest = instruction
        sizes[name] = sum(array_bytes(shape))
        if kind not in NO_TRAFFIC:
            read = sum(sizes.get(operand, 0) for operand in operands)
            source = re.search(r'op_name="([^"]*)"', rest)
            accessing.append(Operation(source.group(1) if source else '', read + sizes[name]))
    return accessing


class Instruction(NamedTuple):
    """A line of a program's text: `name = shape kind(operands)rest`."""

    name: str
    shape: str
    kind: str
    operands: list[str]
    rest: str


def entry_name(text: str) -> str:
    """The name of the computation that one call runs."""
    return str(re.findall(r'^ENTRY %?([\w.\-]+)', text, re.MULTILINE)[-1])


def computations(text: str) -> dict[str, list[Instruction]]:
    """The instructions of each computation of a module, by its name."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if match := _INSTRUCTION.match(line):
            name, shape, kind, operands, rest = match.groups()
            names = re.findall(r'%([\w.\-]+)', operands) or operands.split(', ')
            current.append(Instruction(name, shape, kind, names, rest))
        elif match := _COMPUTATION.match(line):
            current = found.setdefault(match[1], [])
    return found


def array_bytes(shape: str, *, memory_only: bool = False) -> Iterator[int]:
    """Bytes of each array of 'f32[8,64]{1,0}' or of a tuple.

    With `memory_only`, 0 for arrays elsewhere, as in S(1), a TPU's fast memory.
    """
    for dtype, dimensions, layout in _ARRAY.findall(shape):
        bits = 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
        elsewhere = memory_only and 'S(' in layout
        yield (
            0 if elsewhere else math.prod(map(int, filter(None, dimensions.split(',')))) * bits // 8
        )
