"""What each gate is worth: how a network does on images when one gate, or all, is replaced."""

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.analysis.gates import GateStatistics, Preprocess, sown_gate
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
ALL = 'all'  # in place of a gate's name

_ALL = -1  # in place of a gate's number
_AS_IT_IS = 0  # in place of a kind's, which count from 1


class Change(NamedTuple):
    """Top-1 in percentage points, and the mean loss in nats, less those of the network as it is."""

    top1: float
    loss: float


class Ablation(NamedTuple):
    """How a network does without its gates.

    Attributes:
      images: that were looked at.
      top1, loss: in percent and nats, of the network as it is.
      changes: {'one': {'all': ..., 'layer1_0/ssa': ...}, 'mean': ..., 'shuffled': ...}: of all
        gates replaced at once, then of one at a time, in the order of computation.
    """

    images: int
    top1: float
    loss: float
    changes: dict[Kind, dict[str, Change]]


class _Replacement(NamedTuple):
    """Which gate is replaced by what: traced, so that one program does for all."""

    kind: Any
    number: Any
    means: tuple[Any, ...]  # of each gate, [maps]
    seed: Any
    rows: Any  # the image's place in the data, [N]


def ablate(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Mapping[str, Any]],
    statistics: Mapping[str, GateStatistics],
    *,
    preprocess: Preprocess | None = None,
    kinds: Sequence[Kind] = KINDS,
    seed: int = 0,
    advance: Callable[[], object] = lambda: None,
) -> Ablation:
    """Replaces what one gate at a time, then all, multiply by, and evaluates the network.

    'one': by 1. 'mean': by the mean of each of its maps, or channels, over pixels and images, which
    keeps what the gate does on average and takes away how it answers its input. 'shuffled': the
    pixels of each image's maps in a random order, one for all maps of an image; where there is one
    pixel, its channels in a random order.

    A block must give gate * x, as all of this package do; CBAM and scSE have two such halves each,
    which are replaced one at a time. Everything is one compiled program, for any number of gates.

    Args:
      model: made by `create_model`, or any module of which modules sow a 'gate' [N, h, w, maps].
      variables: its 'params' and 'batch_stats'.
      batches: dicts of 'image', 'label' int [N] (-1: nothing is right) and perhaps 'mask', as for
        `gate_statistics`.
      statistics: from `gate_statistics` of the same images.
      preprocess: makes what the model takes of the images; None: they are normalised.
      kinds: of replacement.
      seed: of the random orders, which follow from it, the gate and the image's place in the data.
      advance: called after each of a batch's `evaluations`.

    Raises:
      ValueError: a kind is unknown, or there is no batch.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f'kind={kind!r} is not known; choose of {", ".join(KINDS)}.')
    variables = jax.tree.map(jnp.asarray, variables)  # moved to the device once
    names, means = tuple(statistics), tuple(found.map_means for found in statistics.values())
    numbers = [np.int32(n) for n in range(_ALL, len(names))]
    trials = [(np.int32(_AS_IT_IS), numbers[0])]
    trials += [(np.int32(1 + KINDS.index(kind)), n) for kind in kinds for n in numbers]
    totals, start = [Metrics.zero() for _ in trials], 0
    for batch in batches:
        rows = np.arange(start, start + len(batch['label']), dtype=np.int32)
        start += len(rows)
        example = jax.tree.map(jnp.asarray, {'mask': np.ones(len(rows), bool), **batch})
        for place, (index, number) in enumerate(trials):
            replacement = _Replacement(index, number, means, np.uint32(seed), rows)
            found = _evaluate(model, preprocess, names, variables, example, replacement)
            totals[place] = jax.block_until_ready(_add(totals[place], found))  # no queue builds up
            advance()
    if not start:
        raise ValueError('ablate was given no batch; pass batches of images and labels.')
    return _compare((ALL, *names), kinds, [total.means() for total in totals])


def evaluations(statistics: Mapping[str, GateStatistics], kinds: Sequence[Kind] = KINDS) -> int:
    """How often `ablate` evaluates each batch."""
    return 1 + len(kinds) * (1 + len(statistics))


def _compare(
    names: Sequence[str], kinds: Sequence[Kind], means: Sequence[Mapping[str, float]]
) -> Ablation:
    """From those of the network as it is, then of each kind for each name."""
    as_it_is, *others = means
    changes = iter(
        Change(found['top1'] - as_it_is['top1'], found['loss'] - as_it_is['loss'])
        for found in others
    )
    return Ablation(
        images=int(as_it_is['num_examples']),
        top1=as_it_is['top1'],
        loss=as_it_is['loss'],
        changes={kind: {name: next(changes) for name in names} for kind in kinds},
    )


_add = jax.jit(operator.add)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _evaluate(
    model: nn.Module,
    preprocess: Preprocess | None,
    names: tuple[str, ...],
    variables: Mapping[str, Any],
    batch: Mapping[str, jax.Array],
    replacement: _Replacement,
) -> Metrics:
    """As `training.steps.eval_step`, with gates replaced."""
    images = preprocess(batch['image']) if preprocess else batch['image']
    with nn.intercept_methods(partial(_replace, names, replacement)):
        logits: Any
        logits, _ = model.apply(variables, images, train=False, mutable=['intermediates'])
    label = batch['label']
    return Metrics.of(logits, label, evaluation_loss(logits, label), batch['mask'])


def _replace(
    names: tuple[str, ...],
    replacement: _Replacement,
    method: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    """What a module's method gives, or what it would with the gate that is to be its own."""
    y, module = method(*args, **kwargs), context.module
    if context.method_name != '__call__' or (gate := sown_gate(module)) is None:
        return y
    number = names.index('/'.join(module.path))
    kind, chosen, means, seed, rows = replacement
    key = jax.random.fold_in(jax.random.key(seed), number)
    gates: list[Callable[[], jax.Array]] = [  # as in KINDS
        lambda: jnp.ones_like(gate),
        lambda: jnp.broadcast_to(means[number].astype(gate.dtype), gate.shape),
        lambda: _shuffled(gate, key, rows),
    ]
    results: list[Callable[[], jax.Array]] = [lambda: y]
    results += [partial(_multiply, other, args[0], y.dtype) for other in gates]
    is_chosen = (chosen == number) | (chosen == _ALL)
    return jax.lax.switch(jnp.where(is_chosen, kind, _AS_IT_IS), results)


def _multiply(gate: Callable[[], jax.Array], x: Any, dtype: jnp.dtype) -> jax.Array:
    """gate() * x, each map of the gate for as many consecutive channels."""
    value = x.value() if isinstance(x, AffineMap) else x  # [N, H, W, C]
    factor = gate()
    wide = jnp.repeat(factor, value.shape[-1] // factor.shape[-1], axis=-1)
    return (wide * value.astype(wide.dtype)).astype(dtype)


def _shuffled(gate: jax.Array, key: jax.Array, rows: jax.Array) -> jax.Array:
    """The pixels of gate [N, h, w, maps] in an order for each image; of one pixel, its maps."""
    n, height, width, maps = gate.shape
    count = height * width if height * width > 1 else maps
    values = gate.reshape(n, count, -1)
    keys = jax.vmap(partial(jax.random.fold_in, key))(rows)
    order = jnp.argsort(jax.vmap(partial(jax.random.bits, shape=(count,)))(keys), axis=1)
    return jnp.take_along_axis(values, order[..., None], axis=1).reshape(gate.shape)
