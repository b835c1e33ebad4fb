"""What the gates of attention blocks do: statistics of what each multiplies its input by."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.analysis.gate_moments import GateMoments, merge, tally

# A gate that varies by less than this share of its range does what a constant would: bfloat16, in
# which networks train as well, rounds activations by up to 0.004 of themselves.
CONSTANT_STD = 1e-3
# At one end of its range for all but one value in a hundred, whatever the image.
SATURATED_SHARE = 0.99

Preprocess = Callable[[jax.Array], jax.Array]


class GateShape(NamedTuple):
    """What a gate looks like in one image.

    Attributes:
      height, width: of its maps; 1 and 1 for a gate of channels, as SE's.
      maps: its last axis: channels, or groups of them, that have values of their own.
      top: its values are from 0 to this: 1, or the block's `gate_scale`.
    """

    height: int
    width: int
    maps: int
    top: float


class GateStatistics(NamedTuple):
    """One gate over all images, each counted once; exact to 1e-6 of its range, shares to 1e-6.

    Attributes:
      shape: of the gate in one image.
      images: that were looked at.
      mean: of all values.
      std: of all values.
      spatial_std: within a map of one image, mean over maps and images; None for one pixel.
      image_std: of a map's mean over its pixels, from image to image; root mean square over maps.
      low, high: shares of the values below 0.05 and above 0.95 of the range.
      entropy: -sum p log p / log(pixels), p a map's values over their sum, mean over maps and
        images: 1 if all pixels are equal, 0 if one has it all; None for one pixel.
      map_means: of each map or channel over pixels and images, float32 [maps].
      histogram: shares of the values in equal parts of the range, float32 [bins]; None unless
        asked for.
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
        """Why a constant would do as well, or None.

        'constant': it varies neither within images nor between them; 'closed', 'open': nearly all
        values are at the lower, the upper end of its range.
        """
        if self.low > SATURATED_SHARE:
            return 'closed'
        if self.high > SATURATED_SHARE:
            return 'open'
        spread = max(self.spatial_std or 0.0, self.image_std)
        return 'constant' if spread < CONSTANT_STD * self.shape.top else None

    def scalars(self) -> dict[str, float]:
        """{'mean': 0.5, 'std': 0.1, ...}: the single numbers that there are."""
        names = ('mean', 'std', 'spatial_std', 'image_std', 'low', 'high', 'entropy')
        return {name: v for name in names if (v := getattr(self, name)) is not None}


def gate_statistics(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: jax.Array | np.ndarray | Iterable[Mapping[str, Any]],
    *,
    preprocess: Preprocess | None = None,
    bins: int = 0,
) -> dict[str, GateStatistics]:
    """Statistics of the gate of every attention block, in inference.

    Args:
      model: made by `create_model`, or any module of which modules sow a 'gate' [N, h, w, maps].
      variables: its 'params' and 'batch_stats'.
      batches: images [N, H, W, 3], or dicts of 'image' and perhaps 'mask' bool [N], False in
        padding, all of one shape, which may be split over devices.
      preprocess: makes what the model takes of the images; None: they are normalised.
      bins: of the histograms; 0: none.

    Returns:
      {'layer1_0/ssa': ..., 'layer1_1/ssa': ...}, in the order of computation. A block of several
      gates, as CBAM's, has an entry for each: 'layer1_0/cbam/channel'.

    Raises:
      ValueError: no module of the network has a gate, or there is no batch.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(2,))
    >>> images = jnp.zeros((2, 32, 32, 3))
    >>> variables = model.init(jax.random.key(0), images, train=False)
    >>> found = gate_statistics(model, variables, images)
    >>> list(found), found['layer1_0/ssa'].mean, found['layer1_0/ssa'].dead
    (['layer1_0/ssa', 'layer1_1/ssa'], 0.5, 'constant')
    """
    variables = jax.tree.map(jnp.asarray, variables)  # moved to the device once
    shapes: dict[str, GateShape] = {}
    total: tuple[GateMoments, ...] = ()
    dicts: Any = [{'image': batches}] if hasattr(batches, 'ndim') else batches
    for batch in dicts:
        image = batch['image']
        mask = batch.get('mask', np.ones(len(image), bool))
        shapes = shapes or _shapes(model, preprocess, variables, image)
        found = _tally_batch(model, preprocess, bins, variables, image, mask)
        total = _merge(total, found) if total else found
    if not shapes:
        raise ValueError('gate_statistics was given no batch; pass images, or batches of them.')
    return summarize(shapes, total)


def find_gates(model: nn.Module, image_size: int) -> dict[str, GateShape]:
    """The gates of `gate_statistics`; raises ValueError where the network has none."""
    image = jnp.zeros((1, image_size, image_size, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    return _shapes(model, None, variables, image)


def tally_gates(
    model: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    mask: jax.Array,
    *,
    bins: int = 0,
) -> tuple[GateMoments, ...]:
    """Of each gate over one batch, in the order of `find_gates`; to be compiled.

    Args:
      model, variables, bins: as in `gate_statistics`.
      images: [N, H, W, 3], normalised; where they are split over devices, the result is of all.
      mask: bool [N].
    """
    gates = _gates(model, variables, images).values()
    return tuple(tally(gate, mask, top, bins) for gate, top in gates)


def summarize(shapes: Mapping[str, GateShape], tallies: Any) -> dict[str, GateStatistics]:
    """What `tally_gates` found, on the host; `shapes` is from `find_gates`."""
    pairs = zip(shapes.items(), jax.device_get(tallies), strict=True)
    return {name: _statistics(shape, found) for (name, shape), found in pairs}


def sown_gate(module: nn.Module) -> jax.Array | None:
    """The gate [N, h, w, maps] that a bound module has sown, while it is applied, if it has."""
    if not module.has_variable('intermediates', 'gate'):
        return None
    sown: Any = module.get_variable('intermediates', 'gate')
    gate = sown[-1] if isinstance(sown, tuple) else None  # A submodule may be called gate.
    return gate if getattr(gate, 'ndim', 0) == 4 else None


def _gates(
    model: nn.Module, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, tuple[jax.Array, float]]:
    """Each gate and the top of its range, in the order in which modules finish."""
    found: dict[str, tuple[jax.Array, float]] = {}

    def watch(method: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result, module = method(*args, **kwargs), context.module
        if context.method_name == '__call__' and (gate := sown_gate(module)) is not None:
            top = float(getattr(module, 'gate_scale', 1.0))
            found['/'.join(module.path)] = (gate.astype(jnp.float32), top)
        return result

    with nn.intercept_methods(watch):
        model.apply(variables, images, train=False, mutable=['intermediates'])
    if not found:
        kind = type(model).__name__
        raise ValueError(f"No module of this {kind} has a gate; choose another, as 'ssa_resnet50'.")
    return found


def _shapes(
    model: nn.Module, preprocess: Preprocess | None, variables: Mapping[str, Any], image: Any
) -> dict[str, GateShape]:
    shapes: dict[str, GateShape] = {}

    def find(variables: Mapping[str, Any], image: jax.Array) -> None:
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
    variables: Mapping[str, Any],
    image: jax.Array,
    mask: jax.Array,
) -> tuple[GateMoments, ...]:
    images = preprocess(image) if preprocess else image
    return tally_gates(model, variables, images, mask, bins=bins)


@jax.jit
def _merge(
    total: tuple[GateMoments, ...], more: tuple[GateMoments, ...]
) -> tuple[GateMoments, ...]:
    return tuple(map(merge, total, more))


def _statistics(shape: GateShape, found: GateMoments) -> GateStatistics:
    within, spatial_std, low, high, entropy = map(float, found.averages)
    across = found.squares / max(float(found.images), 1.0)  # [maps]
    one_pixel = shape.height * shape.width == 1
    return GateStatistics(
        shape=shape,
        images=int(found.images),
        mean=float(np.mean(found.means)),
        std=math.sqrt(within + np.mean(across) + np.var(found.means)),
        spatial_std=None if one_pixel else spatial_std,
        image_std=math.sqrt(np.mean(across)),
        low=low,
        high=high,
        entropy=None if one_pixel else entropy,
        map_means=np.asarray(found.means),
        histogram=np.asarray(found.histogram) if len(found.histogram) else None,
    )
