"""Which module is the first of a training step to turn non-finite, forward or on the way back."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from ssanet_jax.trained.module_tracer import Call, Recorder, Values, over_devices, tally_with_norm
from ssanet_jax.training.losses import LossFn
from ssanet_jax.training.steps import DATA_AXIS, DeviceBatch, Preprocess, TrainState, dropout_key


class Place(NamedTuple):
    """A module that was given finite values, and made others of them.

    Attributes:
      path, kind: of the module; None where it is the loss.
      submodule: between which and the module's own input it was; '' if it is the module's result.
      made: where the first that are not finite are.
      given: what it was made from.
    """

    path: str | None
    kind: str
    submodule: str
    made: Values
    given: Values


class Diagnosis(NamedTuple):
    """One training step, looked at before the optimizer.

    Attributes:
      loss: mean over the batch.
      params, batch_stats: as they were before the step, by 'layer1_0/bn1/scale'.
      grads: of params, as the optimizer gets them.
      calls: of all modules' methods, in their order; the first is given the preprocessed images.
      forward: where the forward pass turns non-finite; None if nowhere, or before it begins.
      backward: where the gradient does; None if nowhere, or if the loss is not finite.
    """

    loss: float
    params: Mapping[str, Values]
    batch_stats: Mapping[str, Values]
    grads: Mapping[str, Values]
    calls: Sequence[Call]
    forward: Place | None
    backward: Place | None


def first_nonfinite(
    model: nn.Module,
    state: TrainState,
    batch: DeviceBatch,
    *,
    loss: LossFn,
    preprocess: Preprocess,
    mesh: Mesh,
    dropout_seed: int = 0,
) -> Diagnosis:
    """Computes the loss and the gradient of `steps.train_step`, and looks at every module.

    What the methods of modules take and give is watched in the order of computation, and the
    gradients by these in its reverse. Of the first that is not finite, everything that it was
    computed from is. XLA fuses other operations than in training: results differ by rounding.

    Args:
      model: as in training.
      state: before the step.
      batch: of the step, split over `mesh` or to be split.
      loss: of logits [N, K] and labels [N], for each example.
      preprocess: makes what the model takes of the batch's images.
      mesh: of the axis 'data'; BatchNorm's statistics are each device's own, as in training.
      dropout_seed: as in training.

    Returns:
      Everything found, on the host.
    """
    recorders: list[Recorder] = []
    step = partial(
        _step,
        model=model,
        loss=loss,
        preprocess=preprocess,
        dropout_seed=dropout_seed,
        recorders=recorders,
    )
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )
    found = jax.device_get(jax.jit(mapped)(state, batch))
    calls = recorders[-1].finish(found['forward'], found['backward'], mesh.size)
    grads = _by_name(found['grads'], state.params)
    mean = float(found['loss'])
    return Diagnosis(
        loss=mean,
        params=_by_name(found['params'], state.params),
        batch_stats=_by_name(found['batch_stats'], state.batch_stats),
        grads=grads,
        calls=calls,
        forward=_first_forward(calls),
        backward=_first_backward(calls, grads) if math.isfinite(mean) else None,
    )


def _step(
    state: TrainState,
    batch: DeviceBatch,
    *,
    model: nn.Module,
    loss: LossFn,
    preprocess: Preprocess,
    dropout_seed: int,
    recorders: list[Recorder],
) -> dict[str, Any]:
    """On one device's share, what `first_nonfinite` needs; its recorder is added to `recorders`."""
    key = dropout_key(dropout_seed, state.step)

    def total_loss(params: Any, taps: jax.Array | None) -> tuple[jax.Array, Any]:
        recorders.append(recorder := Recorder(taps))
        with nn.intercept_methods(recorder):
            logits, _ = model.apply(
                {'params': params, 'batch_stats': state.batch_stats},
                preprocess(batch['image']),
                train=True,
                mutable=['batch_stats'],
                rngs={'dropout': key},
            )
        losses = loss(logits, batch['label']).astype(jnp.float32)
        total = jnp.sum(losses, where=batch['mask'])
        return total, (total, recorder.tallies)

    jax.eval_shape(total_loss, state.params, None)  # counts the taps
    taps = jnp.zeros((len(recorders[-1].sizes), 2))
    (grads, backward), (total, forward) = jax.grad(total_loss, (0, 1), has_aux=True)(
        state.params, taps
    )
    count = jnp.sum(batch['mask'].astype(jnp.float32))
    grads, total, count = jax.lax.psum((grads, total, count), DATA_AXIS)
    return {
        'loss': total / count,
        'forward': [over_devices(*tally) for tally in forward],
        'backward': over_devices(backward[:, 0], backward[:, 1]),
        'params': jax.tree.map(tally_with_norm, state.params),
        'batch_stats': jax.tree.map(tally_with_norm, state.batch_stats),
        'grads': jax.tree.map(lambda g: tally_with_norm(g / count), grads),
    }


def _by_name(tallies: Any, arrays: Any) -> dict[str, Values]:
    leaves = jax.tree_util.tree_leaves_with_path(arrays)
    found = jax.tree.leaves(tallies, is_leaf=lambda node: isinstance(node, tuple))
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): Values.of(tally, leaf.size)
        for (path, leaf), tally in zip(leaves, found, strict=True)
    }


def _first_forward(calls: Sequence[Call]) -> Place | None:
    inputs = [(call.begin, call, True) for call in calls if call.inputs.nonfinite]
    outputs = [(call.end, call, False) for call in calls if call.outputs.nonfinite]
    if not inputs and not outputs:
        return None
    _, call, is_input = min([*inputs, *outputs], key=lambda event: event[0])
    if not is_input:
        return Place(call.path, call.kind, '', call.outputs, call.inputs)
    if call.caller is None:
        return None  # The image is not finite.
    caller = calls[call.caller]
    return Place(caller.path, caller.kind, call.path, call.inputs, caller.inputs)


def _first_backward(calls: Sequence[Call], grads: Mapping[str, Values]) -> Place | None:
    """The last place forward. A module's parameters have their gradients where its input has."""
    bad = {name.rpartition('/')[0]: values for name, values in grads.items() if values.nonfinite}
    inputs = [(c.begin, c, True) for c in calls if c.input_grads.nonfinite or c.path in bad]
    outputs = [(call.end, call, False) for call in calls if call.output_grads.nonfinite]
    if not inputs and not outputs:
        return None
    _, call, is_input = max([*inputs, *outputs], key=lambda event: event[0])
    if is_input:
        made = call.input_grads if call.input_grads.nonfinite else bad[call.path]
        return Place(call.path, call.kind, '', made, call.output_grads)
    if call.caller is None:
        return Place(None, '', '', call.output_grads, call.outputs)
    caller = calls[call.caller]
    return Place(caller.path, caller.kind, call.path, call.output_grads, caller.output_grads)
