"""Where a network looks: the maps of its attention blocks, and Grad-CAM to hold beside them."""

import difflib
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax import layers
from ssanet_jax.models.folded_tail import plain_form
from ssanet_jax.models.network import Network


class SaliencyMaps(NamedTuple):
    """What a batch of images is multiplied by, pixel for pixel.

    Attributes:
      blocks: {'layer1_0/ssa': [N, h, w], ...}, in the order of computation.
      stages: {'stage1': [N, h, w], ...}, means over the blocks of a stage.
      mean: [N, H, W], over the stages, resized to the images bilinearly.
    """

    blocks: dict[str, jax.Array]
    stages: dict[str, jax.Array]
    mean: jax.Array


def saliency_maps(model: Network, variables: Mapping[str, Any], images: jax.Array) -> SaliencyMaps:
    """The gates of a network's attention blocks as maps over the pixels, in inference.

    A map is the gate itself, which x is multiplied by: sigmoid(BatchNorm(s)) of `SSABlock`, from
    0 to 1 (to `gate_scale` for an SSABlock), not the saliency s before it. Where a gate has
    several maps, for groups or for channels, they are averaged; where a block has several gates,
    that over pixels is taken. Gates without extent, as those of SE, are left out. The stage of a
    block is the first number in its name.

    Args:
      model: made by `create_model`, or by `batch_norm_folding.for_inference`.
      variables: its 'params' and 'batch_stats'.
      images: [N, H, W, 3], normalised.

    Raises:
      ValueError: no block has a gate over pixels.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10)
    >>> images = jnp.ones((1, 32, 32, 3))
    >>> variables = jax.eval_shape(
    ...     lambda: model.init(jax.random.key(0), images, train=False))
    >>> maps = jax.eval_shape(lambda v: saliency_maps(model, v, images), variables)
    >>> {stage: value.shape for stage, value in maps.stages.items()}
    {'stage1': (1, 32, 32), 'stage2': (1, 16, 16), 'stage3': (1, 8, 8)}
    >>> len(maps.blocks), maps.mean.shape
    (9, (1, 32, 32))
    """
    blocks = dict(_block_maps(model, variables, images))
    by_stage: dict[str, list[jax.Array]] = {}
    for block, value in blocks.items():
        by_stage.setdefault(_stage(block), []).append(value)
    stages = {stage: _mean(values) for stage, values in by_stage.items()}
    _, height, width, _ = images.shape
    mean = _mean([resize(value, height, width) for value in stages.values()])
    return SaliencyMaps(blocks, stages, mean)


@partial(jax.jit, static_argnums=0)
def _block_maps(
    model: Network, variables: Mapping[str, Any], images: jax.Array
) -> OrderedDict[str, jax.Array]:
    _, state = model.apply(variables, images, train=False, mutable=['intermediates'])
    sown = flax.traverse_util.flatten_dict(state.get('intermediates', {}))
    gates = {'/'.join(path[:-1]): value[-1] for path, value in sown.items() if path[-1] == 'gate'}
    # jit would sort a dict by its keys: 'layer1_10' before 'layer1_2'.
    maps = OrderedDict(
        (block, jnp.mean(gate, axis=-1))
        for block, gate in gates.items()
        if gate.shape[1:3] != (1, 1)
    )
    if not maps:
        first = [f'{block} has [N, {str(gate.shape[1:])[1:-1]}]' for block, gate in gates.items()]
        raise ValueError(
            f'No block of this {type(model).__name__} has a gate over pixels '
            f'({first[0] if first else "it has no attention"}); choose ssa, gssa, sa, sse, scse, '
            'cbam, ca or simam, or larger images where the gate is of one pixel, or use grad_cam, '
            'which takes any network.'
        )
    return maps


def _mean(maps: list[jax.Array]) -> jax.Array:
    return jnp.mean(jnp.stack(maps), axis=0)


def _stage(block: str) -> str:
    name = block.partition('/')[0]
    number = re.search(r'\d+', name)
    return f'stage{number[0]}' if number else name


def resize(maps: jax.Array, height: int, width: int) -> jax.Array:
    """Maps [N, h, w] as [N, height, width], bilinearly."""
    return jax.image.resize(maps, (maps.shape[0], height, width), 'linear')


def rescale(maps: np.ndarray) -> np.ndarray:
    """Each map [..., h, w] stretched from its own lowest and highest value to 0 and 1.

    A map that is the same everywhere becomes 0.

    >>> rescale(np.array([[[2.0, 3.0], [2.5, 4.0]]]))
    array([[[0.  , 0.5 ],
            [0.25, 1.  ]]])
    """
    maps = np.asarray(maps)
    low, high = (f(maps, axis=(-2, -1), keepdims=True) for f in (np.min, np.max))
    return (maps - low) / np.where(high > low, high - low, 1)


def grad_cam(
    model: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    layer: str | None = None,
) -> jax.Array:
    """Grad-CAM (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391), for any network.

        a[k]    = mean_{h,w} d logit[label] / d A[h, w, k]      weights, [N, C]
        m[h, w] = relu(sum_k a[k] * A[h, w, k])                 [N, h, w]

    Args:
      model: made by `create_model`.
      variables: its 'params' and 'batch_stats'.
      images: [N, H, W, 3], normalised.
      labels: int [N], the class that each image is asked about.
      layer: whose output A is, by its name in `feature_maps`, as 'layer3_2'; None: what
        `Network.classify` is given, the last feature map.

    Raises:
      ValueError: labels are not N classes of the network, or no layer of that name has a map.
    """
    asked = np.asarray(labels)
    fits = asked.shape == images.shape[:1] and np.issubdtype(asked.dtype, np.integer)
    if not (fits and np.all((asked >= 0) & (asked < model.num_classes))):
        raise ValueError(
            f'grad_cam needs {images.shape[0]} labels from 0 to {model.num_classes - 1}, one for '
            f'each image; got {asked.tolist()}.'
        )
    return _grad_cam(plain_form(model), layer, variables, images, jnp.asarray(asked, jnp.int32))


@partial(jax.jit, static_argnums=(0, 1))
def _grad_cam(
    model: Network,
    layer: str | None,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    def logit(offset: jax.Array | float) -> tuple[jax.Array, jax.Array]:
        """The sum over images, of which each depends on its own map alone; and the maps."""
        watch = _Offset(layer, offset)
        with nn.intercept_methods(watch):
            logits: Any = model.apply(variables, images, train=False)
        return jnp.sum(jnp.take_along_axis(logits, labels[:, None], axis=1)), watch.found()

    _, found = jax.eval_shape(logit, 0.0)
    gradient, features = jax.grad(logit, has_aux=True)(jnp.zeros(found.shape, found.dtype))
    stats = layers.reduction_dtype(features.dtype)
    weights = jnp.mean(gradient.astype(stats), axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
    return nn.relu(jnp.sum(weights * features.astype(stats), axis=-1))


class _Offset:
    """Adds an offset to the output of one layer: the gradient by it is that by the output."""

    def __init__(self, layer: str | None, offset: jax.Array | float):
        self._wanted = ('', 'features') if layer is None else (layer, '__call__')
        self._offset = offset
        self._value: Any = None
        self._names: list[str] = []

    def __call__(
        self,
        method: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: nn.module.InterceptorContext,
    ) -> Any:
        result = method(*args, **kwargs)
        if context.module.scope is None or getattr(result, 'ndim', 0) != 4:
            return result  # asked for its settings only, or no feature map
        place = ('/'.join(context.module.path), context.method_name)
        self._names.append(place[0])
        if place != self._wanted:
            return result
        self._value = result + self._offset
        return self._value

    def found(self) -> jax.Array:
        """The output."""
        if self._value is None:
            close = difflib.get_close_matches(self._wanted[0], self._names, n=5)
            nearest = ', '.join(close or list(dict.fromkeys(self._names))[-5:])
            raise ValueError(
                f'No layer called {self._wanted[0]!r} has a feature map. Nearest: {nearest}.'
            )
        return self._value
