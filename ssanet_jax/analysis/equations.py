"""Walks a traced program: the equations that are computed, and what their products cost."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from jax.extend import core as jex_core


def equations(
    jaxpr: jex_core.Jaxpr,
    inputs: Sequence[bool] | None = None,
    num_results: int | None = None,
    scope: tuple[str, ...] = (),
) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Every equation between inputs and results, nested programs' too, with the scopes around it.

    Left out is what does not depend on an input, as initial weights, and what no result depends
    on, as values that are only sown.

    Args:
      jaxpr: the program.
      inputs: which of its inputs count as such; None: all.
      num_results: its first outputs, which count as results; None: all.
      scope: names to begin with. `jax.named_scope` adds others, as flax does for every module:
        ('Net', 'conv1').
    """
    marks = inputs or [True] * len(jaxpr.invars)
    known = {var for var, mark in zip(jaxpr.invars, marks, strict=True) if mark}
    for eqn in _needed(jaxpr, num_results):
        given = [isinstance(var, jex_core.Var) and var in known for var in eqn.invars]
        if not any(given):
            continue
        known.update(eqn.outvars)
        inner = (*scope, *str(eqn.source_info.name_stack).split('/'))
        yield eqn, inner
        for nested in jex_core.jaxprs_in_params(eqn.params):
            same = len(nested.invars) == len(given)
            yield from equations(nested, given if same else None, scope=inner)


def macs_of(eqn: Any) -> int:
    """Multiply-adds of a convolution or matrix product: output size times contracted size."""
    if eqn.primitive.name == 'dot_general':
        (contracted, _), _ = eqn.params['dimension_numbers']
        lhs = eqn.invars[0].aval.shape
        return eqn.outvars[0].aval.size * math.prod(lhs[axis] for axis in contracted)
    if eqn.primitive.name == 'conv_general_dilated':
        kernel = eqn.invars[1].aval
        out_features = kernel.shape[eqn.params['dimension_numbers'].rhs_spec[0]]
        return eqn.outvars[0].aval.size * kernel.size // out_features
    return 0


def _needed(jaxpr: jex_core.Jaxpr, num_results: int | None) -> list[Any]:
    """The equations that the first `num_results` outputs depend on."""
    results = jaxpr.outvars[:num_results]
    needed, found = {var for var in results if isinstance(var, jex_core.Var)}, []
    for eqn in reversed(jaxpr.eqns):
        if not needed.isdisjoint(eqn.outvars):
            found.append(eqn)
            needed |= {var for var in eqn.invars if isinstance(var, jex_core.Var)}
    return found[::-1]
