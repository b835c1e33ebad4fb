"""Counts non-finite values in the inputs and outputs of modules, and in their gradients."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.analysis.interception import ModuleCall


class ArrayStats(NamedTuple):
    """Number of non-finite values, number of values, and the largest finite absolute value."""

    nonfinite: int
    size: int
    largest: float


class Edge(NamedTuple):
    """The input or the output of a module's method.

    Attributes:
      path, kind: of the module; '' is the path of the network.
      caller: path of the module that calls the method; '' for the network's own call.
      is_input: whether this is the module's input or its output.
      values: on all devices together.
      grads: gradients of the loss by the values.
    """

    path: str
    kind: str
    caller: str
    is_input: bool
    values: ArrayStats
    grads: ArrayStats


def array_stats(array: np.ndarray) -> ArrayStats:
    """The statistics of an array on the host.

    >>> array_stats(np.array([1.0, -3.0, np.inf]))
    ArrayStats(nonfinite=1, size=3, largest=3.0)
    """
    finite = np.abs(array[np.isfinite(array)], dtype=np.float64)
    return ArrayStats(array.size - finite.size, array.size, float(finite.max(initial=0)))


class Inspector:
    """Hook of `on_call` that counts non-finite values in the inputs and outputs of modules."""

    def start(self, probes: jax.Array | None) -> None:
        """Begins a forward pass; the gradient by `probes` [E, 2] counts as `counts` does."""
        self._probes = probes
        self._callers = ['']
        self._edges: list[tuple[str, str, str, bool, int]] = []
        self.counts: list[jax.Array] = []

    def __call__(self, call: ModuleCall) -> Any:
        args, kwargs = self._inspect(call, (call.args, call.kwargs), is_input=True)
        self._callers.append(call.path)
        result = call.method(*args, **kwargs)
        self._callers.pop()
        return self._inspect(call, result, is_input=False)

    def _inspect(self, call: ModuleCall, tree: Any, *, is_input: bool) -> Any:
        def inspect(leaf: Any) -> Any:
            if not isinstance(leaf, jax.Array) or not jnp.issubdtype(leaf.dtype, jnp.floating):
                return leaf
            if self._probes is not None:
                leaf = _probe(leaf, self._probes[len(self.counts)])
            kind, caller = type(call.module).__name__, self._callers[-1]
            self._edges.append((call.path, kind, caller, is_input, leaf.size))
            self.counts.append(_count(leaf))
            return leaf

        return jax.tree.map(inspect, tree)

    def edges(self, forward: np.ndarray, backward: np.ndarray, num_devices: int) -> list[Edge]:
        """The edges with their counts [E, 2] over all devices."""

        def stats(count: np.ndarray, size: int) -> ArrayStats:
            size *= num_devices  # float32 counts are rounded above 2**24
            return ArrayStats(min(int(count[0]), size), size, float(count[1]))

        return [
            Edge(path, kind, caller, is_input, stats(forward[i], size), stats(backward[i], size))
            for i, (path, kind, caller, is_input, size) in enumerate(self._edges)
        ]


def _count(array: jax.Array) -> jax.Array:
    """The number of non-finite values and the largest finite |value|: float32 [2]."""
    finite = jnp.isfinite(array)
    largest = jnp.max(jnp.where(finite, jnp.abs(array), 0), initial=0)
    return jnp.stack([jnp.sum(~finite, dtype=jnp.float32), largest.astype(jnp.float32)])


@jax.custom_vjp
def _probe(array: jax.Array, probe: jax.Array) -> jax.Array:
    """Returns the array; the gradient by `probe` [2] is the `_count` of the array's gradient."""
    return array


_probe.defvjp(
    lambda array, probe: (array, None),
    lambda _, cotangent: (cotangent, _count(cotangent)),
)
