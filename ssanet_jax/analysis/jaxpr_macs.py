"""Walks a jaxpr: the equations that results need, and the MACs of each."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jex_core

try:
    from jax.extend.core import jaxprs_in_params
except ImportError:  # before jax 0.10
    from jax.core import jaxprs_in_params


def equations(
    jaxpr: jex_core.Jaxpr,
    depends: Sequence[bool] | None = None,
    num_results: int | None = None,
    scope: tuple[str, ...] = (),
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yields each equation that results depend on and that depends on inputs, with its scope.

    Equations of nested programs are included; of alternatives, as those of
    `jax.lax.platform_dependent`, those of the one with the fewest MACs.

    Args:
      jaxpr: the program.
      depends: for each of its inputs, whether it counts as one; None: all do.
      num_results: number of leading outputs that count as results; None: all do.
      scope: names around the program; the names of the modules follow: ('Net', 'conv1').
    """
    marks = depends or [True] * len(jaxpr.invars)
    known = {var for var, mark in zip(jaxpr.invars, marks, strict=True) if mark}
    for eqn in _needed(jaxpr, num_results):
        marks = [isinstance(var, jex_core.Var) and var in known for var in eqn.invars]
        if not any(marks):
            continue
        known.update(eqn.outvars)
        inner = (*scope, *str(eqn.source_info.name_stack).split('/'))
        yield eqn, inner
        programs = list(jaxprs_in_params(eqn.params))
        if eqn.primitive.name == 'cond':
            programs, marks = [min(programs, key=least_macs)], marks[1:]
        for nested in programs:
            same = len(nested.invars) == len(marks)
            yield from equations(nested, marks if same else None, scope=inner)


def _needed(jaxpr: jex_core.Jaxpr, num_results: int | None) -> list[Any]:
    """The equations that the first `num_results` outputs depend on."""
    results = jaxpr.outvars[:num_results]
    needed = {var for var in results if isinstance(var, jex_core.Var)}
    eqns = []
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            eqns.append(eqn)
            needed |= {var for var in eqn.invars if isinstance(var, jex_core.Var)}
    return eqns[::-1]


def macs_of(eqn: Any) -> int:
    """MACs of a convolution or matrix product: output size times contracted size."""
    if eqn.primitive.name == 'dot_general':
        (contracted, _), _ = eqn.params['dimension_numbers']
        lhs = eqn.invars[0].aval.shape
        return eqn.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)
    if eqn.primitive.name == 'conv_general_dilated':
        kernel = eqn.invars[1].aval
        out_features = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
        return eqn.outvars[0].aval.size * kernel.size // out_features
    return 0


def least_macs(jaxpr: jex_core.Jaxpr) -> int:
    """MACs that a program needs at least, for what its outputs depend on.

    Of alternatives, as those of `jax.lax.platform_dependent`, the one with the fewest counts; a
    scan counts each of its iterations.
    """
    total = 0
    for eqn in _needed(jaxpr, None):
        nested = [least_macs(inner) for inner in jaxprs_in_params(eqn.params)]
        inner = min(nested) if eqn.primitive.name == 'cond' else sum(nested)
        total += inner * eqn.params['length'] if eqn.primitive.name == 'scan' else inner
        total += nonzero_macs_of(eqn)
    return total


def nonzero_macs_of(eqn: Any) -> int:
    """`macs_of` without products with the zeros of padding and dilation, which can be skipped."""
    if eqn.primitive.name != 'conv_general_dilated':
        return macs_of(eqn)
    lhs, kernel = (var.aval.shape for var in eqn.invars)
    numbers, output = eqn.params['dimension_numbers'], eqn.outvars[0].aval
    taps = positions = 1
    for axis, (lhs_dim, rhs_dim, out_dim) in enumerate(
        zip(numbers.lhs_spec[2:], numbers.rhs_spec[2:], numbers.out_spec[2:], strict=True)
    ):
        positions *= output.shape[out_dim]
        taps *= _taps(
            lhs[lhs_dim],
            kernel[rhs_dim],
            output.shape[out_dim],
            stride=eqn.params['window_strides'][axis],
            padding=eqn.params['padding'][axis][0],
            lhs_dilation=eqn.params['lhs_dilation'][axis],
            rhs_dilation=eqn.params['rhs_dilation'][axis],
        )
    return output.size // positions * kernel[numbers.rhs_spec[1]] * taps


def _taps(
    size: int,
    kernel: int,
    outputs: int,
    *,
    stride: int,
    padding: int,
    lhs_dilation: int,
    rhs_dilation: int,
) -> int:
    """Pairs of an output and a kernel element along one axis that meet an element of the input."""
    taps = 0
    for start in range(-padding, stride * outputs - padding, stride):
        for place in range(start, start + kernel * rhs_dilation, rhs_dilation):
            taps += 0 <= place <= (size - 1) * lhs_dilation and place % lhs_dilation == 0
    return taps
