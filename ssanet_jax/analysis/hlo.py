"""XLA's own counts of a compiled program: operations, memory and communication."""

import math
import re
from typing import Any, NamedTuple

import jax

_SHAPE = re.compile(r'(pred|[a-z]+\d+)\w*\[([\d,]*)\]')
_OPERATION = re.compile(r'\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\(([^)]*)\)(.*)')
_FREE = {'parameter', 'get-tuple-element', 'tuple', 'bitcast', 'constant'}
_ALL_REDUCE = re.compile(r' = (.*) all-reduce(?:-start)?\(')


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
    exchanged = _ALL_REDUCE.findall(compiled.as_text() or '')
    return ProgramCost(
        flops=counts['flops'],
        bytes_accessed=counts['bytes accessed'],
        temporaries=memory.temp_size_in_bytes,
        all_reduces=len(exchanged),
        all_reduce_bytes=sum(_size(shapes) for shapes in exchanged),
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
    for line in text[text.index('\nENTRY') :].splitlines():
        match = _OPERATION.match(line)
        if not match:
            continue
        name, shape, kind, operands, rest = match.groups()
        sizes[name] = _size(shape)
        if kind not in _FREE:
            read = sum(sizes.get(o, 0) for o in re.findall(r'%([\w.\-]+)', operands))
            source = re.search(r'op_name="([^"]*)"', rest)
            accessing.append(Operation(source.group(1) if source else '', read + sizes[name]))
    return accessing


def _size(shapes: str) -> int:
    """Bytes of 'f32[8,64]{1,0}' or of a tuple of such shapes."""
    total = 0
    for dtype, dimensions in _SHAPE.findall(shapes):
        bits = 8 if dtype == 'pred' else int(re.sub(r'\D', '', dtype))
        total += math.prod(int(d) for d in dimensions.split(',') if d) * bits // 8
    return total
