"""Watches the methods of modules: what goes in and comes out, and the gradients by these."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.training.steps import DATA_AXIS

GateMoments = tuple[jax.Array, ...]  # values that are not finite, and the largest that is


class Values(NamedTuple):
    """What is in an array, or in several, on all devices together.

    Attributes:
      nonfinite: how many values are not finite.
      size: of how many.
      largest: |value| of those that are finite.
      norm: of those that are finite; only for parameters' gradients.
    """

    nonfinite: int
    size: int
    largest: float
    norm: float = 0.0

    @classmethod
    def of(cls, tally: Sequence[Any], size: int) -> 'Values':
        """From the numbers of `tally` or `tally_with_norm`, on the host."""
        nonfinite, largest, *norm = map(float, tally)
        # Counts of gradients are float32, and rounded above 2**24.
        return cls(min(int(nonfinite), size), size, largest, largest * norm[0] if norm else 0.0)


class Call(NamedTuple):
    """One call of a module's method.

    Attributes:
      path: of the module, as 'layer1_0/bn1'; '' for the network.
      kind: class of the module.
      caller: which call it was made in, by its place in the order of calls.
      begin, end: places of its input and its output in the order of computation.
      inputs, outputs: what goes in and comes out.
      input_grads, output_grads: the loss's gradients by these.
    """

    path: str
    kind: str
    caller: int | None
    begin: int
    end: int
    inputs: Values
    outputs: Values
    input_grads: Values
    output_grads: Values


def tally(leaves: Sequence[jax.Array]) -> GateMoments:
    """Of several arrays together."""
    nonfinite, largest = jnp.zeros((), jnp.int32), jnp.zeros(())
    for leaf in leaves:
        finite = jnp.isfinite(leaf)
        nonfinite += jnp.sum(~finite, dtype=jnp.int32)
        sizes = jnp.where(finite, jnp.abs(leaf), 0).astype(jnp.float32)
        largest = jnp.maximum(largest, jnp.max(sizes, initial=0))
    return nonfinite, largest


def tally_with_norm(leaf: jax.Array) -> GateMoments:
    """And the norm in multiples of the largest, whose square may not be finite."""
    nonfinite, largest = tally([leaf])
    shares = jnp.where(jnp.isfinite(leaf), leaf, 0) / jnp.where(largest > 0, largest, 1)
    return nonfinite, largest, jnp.sqrt(jnp.sum(shares**2))


def over_devices(nonfinite: jax.Array, largest: jax.Array) -> GateMoments:
    """Those of each device together."""
    return jax.lax.psum(nonfinite, DATA_AXIS), jax.lax.pmax(largest, DATA_AXIS)


@jax.custom_vjp
def _tap(leaves: list[jax.Array], tap: jax.Array) -> list[jax.Array]:
    """The leaves as they are; the gradient by `tap` [2] is the tally of theirs."""
    return leaves


def _tap_fwd(leaves: list[jax.Array], tap: jax.Array) -> tuple[list[jax.Array], None]:
    return leaves, None


def _tap_bwd(_: None, cotangents: list[jax.Array]) -> tuple[list[jax.Array], jax.Array]:
    nonfinite, largest = tally(cotangents)
    return cotangents, jnp.stack([nonfinite.astype(jnp.float32), largest])


_tap.defvjp(_tap_fwd, _tap_bwd)


class Recorder:
    """Intercepts the methods of modules, and tallies what goes in and comes out.

    Args:
      taps: a row for each input and each output, whose gradients are the tallies of theirs; None
        while they are counted.
    """

    def __init__(self, taps: jax.Array | None):
        self._taps = taps
        self._open: list[int] = []
        self._calls: list[dict[str, Any]] = []
        self.sizes: list[int] = []  # values in each input and each output
        self.tallies: list[GateMoments] = []

    def __call__(
        self,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        if context.module.scope is None:  # asked for its settings only, outside the network
            return method(*args, **kwargs)
        (args, kwargs), begin = self._watch((args, kwargs))
        call = {
            'path': '/'.join(context.module.path),
            'kind': type(context.module).__name__,
            'caller': self._open[-1] if self._open else None,
            'begin': begin,
        }
        self._open.append(len(self._calls))
        self._calls.append(call)
        result, call['end'] = self._watch(method(*args, **kwargs))
        self._open.pop()
        return result

    def _watch(self, tree: Any) -> tuple[Any, int]:
        """The same, watched, and its number."""
        number = len(self.sizes)
        leaves, structure = jax.tree.flatten(tree)
        places = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
        chosen = [leaves[i] for i in places]
        self.sizes.append(sum(leaf.size for leaf in chosen))
        self.tallies.append(tally(chosen))
        if self._taps is not None:
            for place, leaf in zip(places, _tap(chosen, self._taps[number]), strict=True):
                leaves[place] = leaf
        return jax.tree.unflatten(structure, leaves), number

    def finish(self, forward: Sequence[Any], backward: Any, devices: int) -> list[Call]:
        """The calls with what was found, of inputs and outputs in the order of their numbers."""
        values = [Values.of(t, n * devices) for t, n in zip(forward, self.sizes, strict=True)]
        gradients = zip(*backward, strict=True)
        grads = [Values.of(t, n * devices) for t, n in zip(gradients, self.sizes, strict=True)]
        return [
            Call(
                **call,
                inputs=values[call['begin']],
                outputs=values[call['end']],
                input_grads=grads[call['begin']],
                output_grads=grads[call['end']],
            )
            for call in self._calls
        ]


def _is_float(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)
