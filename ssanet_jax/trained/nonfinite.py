"""Finds the module that is the first of a training step to produce non-finite values."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ssanet_jax.analysis.interception import on_call
from ssanet_jax.models import Network
from ssanet_jax.trained.inspection import ArrayStats, Edge, Inspector, array_stats
from ssanet_jax.training.checkpoints.trees import named_leaves
from ssanet_jax.training.objective import DATA_AXIS, DeviceBatch, Objective
from ssanet_jax.training.steps import TrainState


class NonFiniteSource(NamedTuple):
    """A module that received finite values or gradients and produced non-finite ones.

    Attributes:
      path, kind: of the module; the path is None for the loss.
      submodule: the module's own code is at fault, between its edge and that of this submodule; ''
        if the fault shows in the module's own output or gradient.
      produced: the non-finite values.
      received: the finite values that they were computed from.
    """

    path: str | None
    kind: str
    submodule: str
    produced: ArrayStats
    received: ArrayStats


class Diagnosis(NamedTuple):
    """A training step up to the optimizer.

    Attributes:
      loss: mean over the batch.
      grads: of the parameters, as the optimizer gets them, by 'layer1_0/bn1/scale'.
      edges: inputs and outputs of all modules, in the order of computation; the first are the
        preprocessed images.
      forward: where the forward pass turns non-finite; None if nowhere, or if the images are.
      backward: where the gradient does; None if nowhere, or if the loss is not finite.
    """

    loss: float
    grads: Mapping[str, np.ndarray]
    edges: Sequence[Edge]
    forward: NonFiniteSource | None
    backward: NonFiniteSource | None


def first_nonfinite(
    objective: Objective, state: TrainState, batch: DeviceBatch, mesh: Mesh
) -> Diagnosis:
    """Computes the loss and gradient of `steps.train_step` and inspects every module.

    The source is the first edge that is not finite in the order of computation, or for gradients
    in the reverse order. XLA fuses this program differently: results differ from training by
    rounding. Nothing is rematerialized. Micro-batches are inspected as one batch, so their dropout
    and statistics differ too.

    Args:
      objective: as in training.
      state: before the step.
      batch: of the step; may be sharded over `mesh`.
      mesh: as in training.
    """
    inspector = Inspector()
    if isinstance(objective.model, Network):  # values cannot be taken out of remat
        objective = objective._replace(model=objective.model.clone(remat=None))
    step = partial(_step, objective=objective, inspector=inspector)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )
    mean, grads, forward, backward = jax.device_get(jax.jit(mapped)(state, batch))
    edges = inspector.edges(forward, backward, mesh.size)
    grads = by_name(grads)
    return Diagnosis(
        loss=float(mean),
        grads=grads,
        edges=edges,
        forward=_first_forward(edges),
        backward=_first_backward(edges, grads) if np.isfinite(mean) else None,
    )


def _step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    objective: Objective,
    inspector: Inspector,
) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """The mean loss, its gradient, and counts [E, 2] of the edges and of their gradients."""
    paired = objective.with_partners(batch)

    def total_loss(params: Any, probes: jax.Array | None) -> tuple[jax.Array, Any]:
        inspector.start(probes)
        with on_call(inspector, method=None):
            losses, *_ = objective(params, state.batch_stats, paired, state.step)
        total = jnp.sum(losses.astype(jnp.float32), where=batch['mask'])
        return total, (total, jnp.stack(inspector.counts))

    jax.eval_shape(total_loss, state.params, None)  # to count the probes
    probes = jnp.zeros((len(inspector.counts), 2))
    gradient = jax.grad(total_loss, (0, 1), has_aux=True)
    (grads, backward), (total, forward) = gradient(state.params, probes)
    count = jnp.sum(batch['mask'].astype(jnp.float32))
    grads, total, count = jax.lax.psum((grads, total, count), DATA_AXIS)
    grads = jax.tree.map(lambda g: g / count, grads)
    return total / count, grads, _over_devices(forward), _over_devices(backward)


def _over_devices(counts: jax.Array) -> jax.Array:
    """Combines the counts [E, 2] of all devices."""
    nonfinite, largest = counts[:, 0], counts[:, 1]
    return jnp.stack([jax.lax.psum(nonfinite, DATA_AXIS), jax.lax.pmax(largest, DATA_AXIS)], 1)


def by_name(tree: Any) -> dict[str, np.ndarray]:
    """{'conv1/kernel': ...}: the arrays of a tree, on the host."""
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def _total(stats: Iterable[ArrayStats]) -> ArrayStats:
    whole = ArrayStats(0, 0, 0.0)  # of a module without inputs
    for part in stats:
        largest = max(whole.largest, part.largest)
        whole = ArrayStats(whole.nonfinite + part.nonfinite, whole.size + part.size, largest)
    return whole


def _blame(edges: Sequence[Edge], bad: Edge, *, own: bool) -> tuple[str, str, str]:
    """The path and kind of the edge's module or of its caller, and the submodule in its code."""
    if own:
        return bad.path, bad.kind, ''
    kind = next(edge.kind for edge in edges if edge.path == bad.caller)
    return bad.caller, kind, '' if bad.path == bad.caller else bad.path


def _first_forward(edges: Sequence[Edge]) -> NonFiniteSource | None:
    bad = next((edge for edge in edges if edge.values.nonfinite), None)
    if bad is None or bad is edges[0]:  # the images themselves
        return None
    path, kind, submodule = _blame(edges, bad, own=not bad.is_input)
    inputs = [e.values for e in edges if e.path == path and e.is_input]
    received = _total(values for values in inputs if not values.nonfinite)
    return NonFiniteSource(path, kind, submodule, bad.values, received)


def _first_backward(
    edges: Sequence[Edge], grads: Mapping[str, np.ndarray]
) -> NonFiniteSource | None:
    """Parameters of a module get their gradients together with its input."""
    stats = {
        name.rpartition('/')[0]: array_stats(grad)
        for name, grad in grads.items()
        if not np.isfinite(grad).all()
    }
    for bad in reversed(edges):
        produced = bad.grads
        if bad.is_input and not produced.nonfinite:
            produced = stats.get(bad.path, produced)
        if not produced.nonfinite:
            continue
        if bad is edges[-1]:  # the logits
            return NonFiniteSource(None, '', '', produced, bad.values)
        path, kind, submodule = _blame(edges, bad, own=bad.is_input)
        outputs = [e.grads for e in edges if e.path == path and not e.is_input]
        received = _total(grads for grads in outputs if not grads.nonfinite)
        return NonFiniteSource(path, kind, submodule, produced, received)
    return None
