"""Gate ablation: how accuracy and loss change when one gate, or all, are replaced."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ssanet_jax.analysis.gates import GateStatistics, Preprocess, sown_gate
from ssanet_jax.analysis.interception import ModuleCall, on_call
from ssanet_jax.layers.affine_map import AffineMap
from ssanet_jax.training.losses import evaluation_loss
from ssanet_jax.training.metrics import Metrics

Kind = Literal['one', 'mean', 'shuffled']
KINDS: tuple[Kind, ...] = get_args(Kind)
KIND_NAMES: dict[Kind, str] = {
    'one': 'set to 1',
    'mean': 'set to its mean',
    'shuffled': 'shuffled',
}
ALL = 'all'  # the name of all gates at once

_ALL = -1  # the index of all gates at once
_UNCHANGED = 0  # the index of no replacement; kinds count from 1


class Change(NamedTuple):
    """Change from the unchanged network: top-1 in percentage points, mean loss in nats."""

    top1: float
    loss: float


class Ablation(NamedTuple):
    """Results of `ablate`.

    Attributes:
      images: number of images.
      top1, loss: of the unchanged network, in percent and nats.
      changes: {'one': {'all': ..., 'layer1_0/ssa': ...}, 'mean': ..., 'shuffled': ...}: all gates
        replaced at once, then one at a time, in the order of computation.
    """

    images: int
    top1: float
    loss: float
    changes: dict[Kind, dict[str, Change]]


class _Replacement(NamedTuple):
    """The gate to replace and its replacement; traced, so that one program serves all."""

    kind: ArrayLike
    gate: ArrayLike
    means: tuple[ArrayLike, ...]  # of each gate, [maps]
    seed: ArrayLike
    rows: ArrayLike  # each image's position in the data, [N]


def ablate(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Mapping[str, Any]],
    statistics: Mapping[str, GateStatistics],
    *,
    preprocess: Preprocess | None = None,
    flip: bool = False,
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Ablation:
    """Evaluates a network with all gates replaced at once, then with one at a time.

    'one' replaces a gate by 1. 'mean' replaces it by the mean of each of its maps (or channels)
    over pixels and images, which keeps its average effect and removes its response to the input.
    'shuffled' permutes the pixels of each image at random, in the same way for all of its maps; a
    gate of one pixel has its channels permuted.

    A block must return gate * x, as all blocks of this package do; the two gates of CBAM and of
    scSE are replaced separately. One compiled program serves any number of gates.

    Args:
      model: made by `create_model`, or any module whose submodules sow a 'gate' [N, h, w, maps].
      variables: its 'params' and 'batch_stats'.
      batches: dicts of 'image', 'label' int [N] (-1: no prediction is correct) and optionally
        'mask', as for `gate_statistics`.
      statistics: from `gate_statistics` of the same images.
      preprocess: maps images to the model's input; None if they are normalized already.
      flip: average the logits of an image and its mirror image, as `training.steps.predict`.
      kinds: of replacement.
      seed: of the random orders, which depend on it, the gate and the image's position.
      advance: called after each of a batch's `evaluations`.

    Raises:
      ValueError: a kind is unknown, or there is no batch.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f'kind={kind!r} is unknown; choose from {", ".join(KINDS)}.')
    variables = jax.tree.map(jnp.asarray, variables)  # moved to the device once
    names, means = tuple(statistics), tuple(gate.map_means for gate in statistics.values())
    indices = [np.int32(n) for n in range(_ALL, len(names))]
    trials = [(np.int32(_UNCHANGED), indices[0])]
    trials += [(np.int32(1 + KINDS.index(kind)), n) for kind in kinds for n in indices]
    totals, start = [Metrics.zero() for _ in trials], 0
    for batch in batches:
        rows = np.arange(start, start + len(batch['label']), dtype=np.int32)
        start += len(rows)
        example = jax.tree.map(jnp.asarray, {'mask': np.ones(len(rows), bool), **batch})
        for number, (kind_index, gate_index) in enumerate(trials):
            replacement = _Replacement(kind_index, gate_index, means, np.uint32(seed), rows)
            more = _evaluate(model, preprocess, flip, names, variables, example, replacement)
            # Waiting keeps dispatched evaluations, and their memory, from piling up.
            totals[number] = jax.block_until_ready(_add(totals[number], more))
            advance()
    if not start:
        raise ValueError('ablate got no batch; pass batches of images and labels.')
    return _compare((ALL, *names), kinds, [total.means() for total in totals])


def evaluations(statistics: Mapping[str, GateStatistics]) -> int:
    """The number of times that `ablate` evaluates each batch, with all kinds of replacement."""
    return 1 + len(KINDS) * (1 + len(statistics))


def _compare(
    names: Sequence[str], kinds: Sequence[Kind], means: Sequence[Mapping[str, float]]
) -> Ablation:
    """Compares means with those of the unchanged network, by kind and name."""
    unchanged, *others = means
    changes = iter(
        Change(other['top1'] - unchanged['top1'], other['loss'] - unchanged['loss'])
        for other in others
    )
    return Ablation(
        images=int(unchanged['num_examples']),
        top1=unchanged['top1'],
        loss=unchanged['loss'],
        changes={kind: {name: next(changes) for name in names} for kind in kinds},
    )


_add = jax.jit(operator.add)


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _evaluate(
    model: nn.Module,
    preprocess: Preprocess | None,
    flip: bool,
    names: tuple[str, ...],
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    replacement: _Replacement,
) -> Metrics:
    """`training.steps.eval_step` with gates replaced."""
    images = preprocess(batch['image']) if preprocess else batch['image']
    views = (images, images[:, :, ::-1]) if flip else (images,)
    with on_call(partial(_replace, names, replacement)):
        outputs = [
            model.apply(variables, view, train=False, mutable=['intermediates'])[0]
            for view in views
        ]
    logits, label = jnp.mean(jnp.stack(outputs), axis=0), batch['label']
    return Metrics.of(logits, label, evaluation_loss(logits, label), batch['mask'])


def _replace(names: tuple[str, ...], replacement: _Replacement, call: ModuleCall) -> Any:
    """The result of a call, with the module's gate replaced if it is the chosen one."""
    y = call()
    if (gate := sown_gate(call.module)) is None:
        return y
    index = names.index(call.path)
    kind, chosen, means, seed, rows = replacement
    key = jax.random.fold_in(jax.random.key(seed), index)
    gates: list[Callable[[], jax.Array]] = [  # as in KINDS
        lambda: jnp.ones_like(gate),
        lambda: jnp.broadcast_to(jnp.asarray(means[index], gate.dtype), gate.shape),
        lambda: _shuffle(gate, key, rows),
    ]
    results: list[Callable[[], jax.Array]] = [lambda: y]
    results += [partial(_multiply, other, call.args[0], y.dtype) for other in gates]
    is_chosen = (chosen == index) | (chosen == _ALL)
    return jax.lax.switch(jnp.where(is_chosen, kind, _UNCHANGED), results)


def _multiply(
    gate: Callable[[], jax.Array], x: jax.Array | AffineMap, dtype: jnp.dtype
) -> jax.Array:
    """gate() * x; each map of the gate covers the same number of consecutive channels."""
    value = x.value() if isinstance(x, AffineMap) else x  # [N, H, W, C]
    factor = gate()
    wide = jnp.repeat(factor, value.shape[-1] // factor.shape[-1], axis=-1)
    return (wide * value.astype(wide.dtype)).astype(dtype)


def _shuffle(gate: jax.Array, key: jax.Array, rows: ArrayLike) -> jax.Array:
    """Permutes the pixels of gate [N, h, w, maps] in each image; of one pixel, its maps."""
    n, height, width, maps = gate.shape
    count = height * width if height * width > 1 else maps
    values = gate.reshape(n, count, -1)
    keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
    order = jnp.argsort(jax.vmap(partial(jax.random.bits, shape=(count,)))(keys), axis=1)
    return jnp.take_along_axis(values, order[..., None], axis=1).reshape(gate.shape)
