"""Statistics of the gates that attention blocks multiply their inputs by."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ssanet_jax.analysis.gate_moments import GateMoments, merge, moments
from ssanet_jax.analysis.interception import ModuleCall, on_call

# Gates that vary by less than this share of their range count as constant: networks also train in
# bfloat16, whose relative rounding error is up to 0.004.
CONSTANT_STD = 1e-3
SATURATED_SHARE = 0.99  # of values at one end of the range, in a closed or open gate

Preprocess = Callable[[jax.Array], jax.Array]
Variables = Mapping[str, Any]  # 'params' and 'batch_stats'


class GateShape(NamedTuple):
    """Shape and range of a gate for one image.

    Attributes:
      height, width: of its maps; 1 and 1 for a channel gate such as SE's.
      maps: size of its last axis: channels, or groups of channels that share a value.
      top: upper end of its range, which starts at 0: 1, or the block's `gate_scale`.
    """

    height: int
    width: int
    maps: int
    top: float


class GateStatistics(NamedTuple):
    """Statistics of one gate over all images; accurate to 1e-6 of its range, shares to 1e-6.

    Attributes:
      shape: of the gate for one image.
      images: number of images.
      mean, std: of all values.
      spatial_std: standard deviation within a map of one image, mean over maps and images; None
        for one pixel.
      image_std: standard deviation over images of a map's mean over its pixels; root mean square
        over maps.
      low, high: shares of the values below 5% and above 95% of the range.
      entropy: -sum p log p / log(pixels), p a map's values over their sum, mean over maps and
        images: 1 if all pixels are equal, 0 if all but one are 0; None for one pixel.
      map_means: mean of each map over pixels and images, float32 [maps].
      histogram: shares of the values in equal bins of the range, float32 [bins]; None if not
        requested.
    """

    shape: GateShape
    images: int
    mean: float
    std: float
    spatial_std: float | None
    image_std: float
    low: float
    high: float
    entropy: float | None
    map_means: np.ndarray
    histogram: np.ndarray | None

    @property
    def dead(self) -> str | None:
        """Why the gate is degenerate, or None.

        'constant': it varies neither within images nor between them. 'closed', 'open': nearly all
        values are at the lower or the upper end of its range.
        """
        if self.low > SATURATED_SHARE:
            return 'closed'
        if self.high > SATURATED_SHARE:
            return 'open'
        if self.images == 1 and self.spatial_std is None:
            return None  # a single value cannot vary
        spread = max(self.spatial_std or 0.0, self.image_std)
        return 'constant' if spread < CONSTANT_STD * self.shape.top else None

    def scalars(self) -> dict[str, float]:
        """{'mean': 0.5, 'std': 0.1, ...}: the statistics that are single numbers and not None."""
        names = ('mean', 'std', 'spatial_std', 'image_std', 'low', 'high', 'entropy')
        return {name: v for name in names if (v := getattr(self, name)) is not None}


def gate_statistics(
    model: nn.Module,
    variables: Variables,
    batches: jax.Array | np.ndarray | Iterable[Mapping[str, Any]],
    *,
    preprocess: Preprocess | None = None,
    bins: int = 0,
) -> dict[str, GateStatistics]:
    """Statistics of the gate of every attention block, in inference.

    Args:
      model: made by `create_model`, or any module whose submodules sow a 'gate' [N, h, w, maps].
      variables: its 'params' and 'batch_stats'.
      batches: images [N, H, W, 3], or dicts of 'image' and optionally 'mask' bool [N], False in
        padding. All of one shape; may be sharded over devices.
      preprocess: maps images to the model's input; None if they are normalized already.
      bins: of the histograms; 0 for none.

    Returns:
      {'layer1_0/ssa': ..., 'layer1_1/ssa': ...}, in the order of computation. A block with several
      gates, such as CBAM, has an entry for each: 'layer1_0/cbam/channel'.

    Raises:
      ValueError: the network has no gate, or there is no batch.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(1,))
    >>> images = jnp.zeros((2, 8, 8, 3))
    >>> variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    >>> statistics = gate_statistics(model, variables, images)
    >>> ssa = statistics['layer1_0/ssa']
    >>> list(statistics), ssa.mean, ssa.dead
    (['layer1_0/ssa'], 0.5, 'constant')
    """
    variables = jax.tree.map(jnp.asarray, variables)  # moved to the device once
    shapes: dict[str, GateShape] = {}
    total: tuple[GateMoments, ...] = ()
    if isinstance(batches, jax.Array | np.ndarray):
        batches = [{'image': batches}]
    for batch in batches:
        image = batch['image']
        mask = batch.get('mask', np.ones(len(image), bool))
        shapes = shapes or _shapes(model, preprocess, variables, image)
        more = _tally_batch(model, preprocess, bins, variables, image, mask)
        total = _merge(total, more) if total else more
    if not shapes:
        raise ValueError('gate_statistics got no batch; pass images or batches of images.')
    return summarize(shapes, total)


def find_gates(model: nn.Module, image_size: int) -> dict[str, GateShape]:
    """Shapes of the gates of `gate_statistics`; raises ValueError if the network has none."""
    image = jnp.zeros((1, image_size, image_size, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    return _shapes(model, None, variables, image)


def tally_gates(
    model: nn.Module, variables: Variables, images: jax.Array, mask: jax.Array, *, bins: int = 0
) -> tuple[GateMoments, ...]:
    """Moments of each gate over one batch, in the order of `find_gates`; for use inside jit.

    Args:
      model, variables, bins: as in `gate_statistics`.
      images: [N, H, W, 3], normalized. If sharded over devices, the result covers all of them.
      mask: bool [N].
    """
    gates = _gates(model, variables, images)
    return tuple(moments(gate, mask, top, bins) for gate, top in gates.values())


def summarize(
    shapes: Mapping[str, GateShape], tallies: Sequence[GateMoments]
) -> dict[str, GateStatistics]:
    """Statistics on the host from `find_gates` and `tally_gates`."""
    pairs = zip(shapes.items(), jax.device_get(tallies), strict=True)
    return {name: _statistics(shape, tally) for (name, shape), tally in pairs}


def sown_gate(module: nn.Module) -> jax.Array | None:
    """The gate [N, h, w, maps] that a bound module has sown during `apply`, or None."""
    if not module.has_variable('intermediates', 'gate'):
        return None
    sown: Any = module.get_variable('intermediates', 'gate')
    gate = sown[-1] if isinstance(sown, tuple) else None  # A submodule may be called gate.
    return gate if getattr(gate, 'ndim', 0) == 4 else None


def _gates(
    model: nn.Module, variables: Variables, images: jax.Array
) -> dict[str, tuple[jax.Array, float]]:
    """Each gate and the top of its range, in the order in which modules finish."""
    gates: dict[str, tuple[jax.Array, float]] = {}

    def record(call: ModuleCall) -> Any:
        result = call()
        if (gate := sown_gate(call.module)) is not None:
            top = float(getattr(call.module, 'gate_scale', 1.0))
            gates[call.path] = (gate.astype(jnp.float32), top)
        return result

    with on_call(record):
        model.apply(variables, images, train=False, mutable=['intermediates'])
    if not gates:
        kind = type(model).__name__
        raise ValueError(f'No module of this {kind} has a gate; choose a network with attention.')
    return gates


def _shapes(
    model: nn.Module, preprocess: Preprocess | None, variables: Variables, image: ArrayLike
) -> dict[str, GateShape]:
    shapes: dict[str, GateShape] = {}

    def find(variables: Variables, image: jax.Array) -> None:
        gates = _gates(model, variables, preprocess(image) if preprocess else image)
        for name, (gate, top) in gates.items():
            _, height, width, maps = gate.shape
            shapes[name] = GateShape(height, width, maps, top)

    jax.eval_shape(find, variables, image)
    return shapes


@partial(jax.jit, static_argnums=(0, 1, 2))
def _tally_batch(
    model: nn.Module,
    preprocess: Preprocess | None,
    bins: int,
    variables: Variables,
    image: jax.Array,
    mask: jax.Array,
) -> tuple[GateMoments, ...]:
    images = preprocess(image) if preprocess else image
    return tally_gates(model, variables, images, mask, bins=bins)


@jax.jit
def _merge(total: Sequence[GateMoments], more: Sequence[GateMoments]) -> tuple[GateMoments, ...]:
    return tuple(map(merge, total, more))


def _statistics(shape: GateShape, tally: GateMoments) -> GateStatistics:
    within, spatial_std, low, high, entropy = map(float, tally.averages)
    across = tally.squares / max(float(tally.images), 1.0)  # [maps]
    one_pixel = shape.height * shape.width == 1
    return GateStatistics(
        shape=shape,
        images=int(tally.images),
        mean=float(np.mean(tally.means)),
        std=math.sqrt(within + np.mean(across) + np.var(tally.means)),
        spatial_std=None if one_pixel else spatial_std,
        image_std=math.sqrt(np.mean(across)),
        low=low,
        high=high,
        entropy=None if one_pixel else entropy,
        map_means=np.asarray(tally.means),
        histogram=np.asarray(tally.histogram) if len(tally.histogram) else None,
    )
