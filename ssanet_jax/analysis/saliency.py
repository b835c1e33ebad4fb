"""Saliency maps: the gates of attention blocks, and Grad-CAM for comparison."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax import layers
from ssanet_jax.analysis.interception import ModuleCall, on_call
from ssanet_jax.errors import nearest
from ssanet_jax.models.folded_tail import plain_form
from ssanet_jax.models.network import Network


class SaliencyMaps(NamedTuple):
    """Maps of the attention gates over a batch of images.

    Attributes:
      blocks: {'layer1_0/ssa': [N, h, w], ...}, in the order of computation.
      stages: {'stage1': [N, h, w], ...}, means over the blocks of a stage.
      mean: [N, H, W], mean over the stages, resized bilinearly to the images.
    """

    blocks: dict[str, jax.Array]
    stages: dict[str, jax.Array]
    mean: jax.Array


def saliency_maps(model: Network, variables: Mapping[str, Any], images: jax.Array) -> SaliencyMaps:
    """The gates of a network's attention blocks as maps over the pixels, in inference.

    A map is the gate itself, which x is multiplied by: sigmoid(BatchNorm(s)) of `SSABlock`, from
    0 to 1 (to `gate_scale`), not the saliency s. Several maps of a gate, for groups or
    channels, are averaged; of several gates in a block, the spatial one is taken. Gates without
    spatial extent, such as SE's, are omitted. A block's stage is the first number in its name.

    Args:
      model: made by `create_model`, optionally folded by `fold_batch_norm`.
      variables: its 'params' and 'batch_stats'.
      images: [N, H, W, 3], normalized.

    Raises:
      ValueError: no block has a spatial gate.

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
    # OrderedDict, since jit sorts the keys of a dict: 'layer1_10' before 'layer1_2'.
    maps = OrderedDict(
        (block, jnp.mean(gate, axis=-1))
        for block, gate in gates.items()
        if gate.shape[1:3] != (1, 1)
    )
    if not maps:
        first = [f'{block} has [N, {str(gate.shape[1:])[1:-1]}]' for block, gate in gates.items()]
        raise ValueError(
            f'No block of this {type(model).__name__} has a spatial gate '
            f'({first[0] if first else "it has no attention"}); choose ssa, gssa, sa, sse, scse, '
            'cbam, ca or simam, or larger images if the gate is of one pixel, or use grad_cam, '
            'which works with any network.'
        )
    return maps


def _mean(maps: list[jax.Array]) -> jax.Array:
    return jnp.mean(jnp.stack(maps), axis=0)


def _stage(block: str) -> str:
    name = block.partition('/')[0]
    number = re.search(r'\d+', name)
    return f'stage{number[0]}' if number else name


def resize(maps: jax.Array, height: int, width: int) -> jax.Array:
    """Resizes maps [N, h, w] to [N, height, width], bilinearly."""
    return jax.image.resize(maps, (maps.shape[0], height, width), 'linear')


def rescale(maps: np.ndarray) -> np.ndarray:
    """Rescales each map [..., h, w] from its own minimum and maximum to 0 and 1.

    A constant map becomes 0.

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
    """Grad-CAM of any network (Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391)::

        a[k]    = mean_{h,w} d logit[label] / d A[h, w, k]      weights, [N, C]
        m[h, w] = relu(sum_k a[k] * A[h, w, k])                 [N, h, w]

    Args:
      model: made by `create_model`.
      variables: its 'params' and 'batch_stats'.
      images: [N, H, W, 3], normalized.
      labels: int [N], the class to explain in each image.
      layer: the layer whose output is A, by its name in `feature_maps`: 'layer3_2'. None: the last
        feature map, the input of `Network.classify`.

    Raises:
      ValueError: labels are not N classes of the network, or no layer of that name has a map.
    """
    if model.num_classes == 0:
        raise ValueError('grad_cam explains classes, and the network has none (num_classes=0).')
    classes = np.asarray(labels)
    fits = classes.shape == images.shape[:1] and np.issubdtype(classes.dtype, np.integer)
    if not (fits and np.all((classes >= 0) & (classes < model.num_classes))):
        raise ValueError(
            f'grad_cam needs {images.shape[0]} labels from 0 to {model.num_classes - 1}, one per '
            f'image; got {classes.tolist()}.'
        )
    return _grad_cam(plain_form(model), layer, variables, images, jnp.asarray(classes, jnp.int32))


@partial(jax.jit, static_argnums=(0, 1))
def _grad_cam(
    model: Network,
    layer: str | None,
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
) -> jax.Array:
    def logit(offset: jax.Array | float) -> tuple[jax.Array, jax.Array]:
        """The sum of the logits of `labels`, and the maps; each logit depends only on its own map.

        The gradient with respect to an offset added to a layer's output is that with respect to
        the output.
        """
        maps: dict[str, jax.Array] = {}

        def add_offset(call: ModuleCall) -> Any:
            result = call()
            if getattr(result, 'ndim', 0) != 4:
                return result
            maps[call.path] = result + offset if call.path == (layer or '') else result
            return maps[call.path]

        with on_call(add_offset, '__call__' if layer else 'features'):
            logits = model.apply(variables, images, train=False)
        chosen = jnp.take_along_axis(jnp.asarray(logits), labels[:, None], axis=1)
        return jnp.sum(chosen), _map_of(layer or '', maps)

    _, shape = jax.eval_shape(logit, 0.0)
    gradient, features = jax.grad(logit, has_aux=True)(jnp.zeros(shape.shape, shape.dtype))
    stats = layers.reduction_dtype(features.dtype)
    weights = jnp.mean(gradient.astype(stats), axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
    return nn.relu(jnp.sum(weights * features.astype(stats), axis=-1))


def _map_of(layer: str, maps: Mapping[str, jax.Array]) -> jax.Array:
    if layer not in maps:
        raise ValueError(
            f'No layer called {layer!r} has a feature map. Nearest: {nearest(layer, maps)}.'
        )
    return maps[layer]
