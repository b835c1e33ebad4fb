"""Folding of BatchNorms into the convolutions before them, for inference."""

import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.googlenet import GoogLeNet
from ssanet_jax.models.mobilenet import MobileNet, MobileNetV2
from ssanet_jax.models.network import Network
from ssanet_jax.models.residual_block import BasicBlock, Bottleneck
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.models.vgg import VGG

# Networks in which a convolution feeds every BatchNorm, except those of attention.
_FOLDABLE = (GoogLeNet, MobileNet, MobileNetV2, ResNet, VGG)
# Their submodules in which `conv<x>` feeds `bn<x>`, or that contain such submodules.
_PARTS = re.compile(
    r'layer\d+_\d+|downsample|stem|head|depthwise|pointwise|expand|project'
    r'|inception\d\w|branch\d(_\d)?|conv\d'
)


def for_inference(
    model: Network, variables: Mapping[str, Any]
) -> tuple[Network, Mapping[str, Any]]:
    """`fold_batch_norm` where it applies; elsewhere the model and variables unchanged.

    It does not apply in bfloat16 either, in which folded kernels would round differently.
    """
    if _obstacle(model) or jnp.dtype(model.dtype).itemsize < 4:
        return model, variables
    return fold_batch_norm(model, variables)


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[Network, dict[str, Any]]:
    """Folds each BatchNorm that follows a convolution into its kernel, for inference only::

        BatchNorm(conv(x, kernel)) = conv(x, kernel * factor) + offset

    Attention's own BatchNorms stay: SSA's normalizes a saliency, not a convolution.

    Args:
      model: a ResNet, VGG, GoogLeNet or MobileNet of this package's blocks and BatchNorm. Other
        networks have BatchNorms before convolutions, with a ReLU between, which cannot be folded.
      variables: its 'params' and 'batch_stats'.

    Returns:
      A model to call with train=False, and its variables. Logits equal those of `model` up to
      rounding, 1e-5 relative in float32.

    Raises:
      TypeError: the network, its residual blocks or its BatchNorm are not this package's.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10)
    >>> images = jax.numpy.ones((1, 32, 32, 3))
    >>> variables = model.init(jax.random.key(0), images, train=False)
    >>> folded, folded_variables = fold_batch_norm(model, variables)
    >>> folded.apply(folded_variables, images, train=False).shape
    (1, 10)
    >>> sum(x.size for x in jax.tree.leaves(folded_variables['batch_stats']))  # SSA's
    18
    """
    if obstacle := _obstacle(model):
        raise TypeError(
            f'fold_batch_norm {obstacle}; call the model as it is, or `for_inference`, which folds '
            'where it can.'
        )
    assert isinstance(model, Network)  # for the type checker
    norm: Any = model.norm(parent=None)
    fold = jax.jit(_fold, static_argnames='epsilon')
    params, stats = fold(variables['params'], variables['batch_stats'], epsilon=norm.epsilon)
    options: dict[str, Any] = {'zero_init_residual': False} if isinstance(model, ResNet) else {}
    folded = model.clone(norm=layers.FoldedBatchNorm, **options)
    return folded, {'params': params, 'batch_stats': stats}


def _obstacle(model: nn.Module) -> str | None:
    """Why the BatchNorms of `model` cannot be folded, or None.

    Classes are compared exactly: a subclass may apply a BatchNorm to anything.
    """
    if not isinstance(model, Network) or type(model) not in _FOLDABLE:
        known = ', '.join(network.__name__ for network in _FOLDABLE)
        return f'supports only {known}, got {type(model).__name__}'
    if layers.unwrap_partial(model.norm) is not layers.BatchNorm:
        return f"supports only this package's BatchNorm, got norm={model.norm}"
    if isinstance(model, ResNet):
        block = layers.unwrap_partial(model.block)
        if block not in (BasicBlock, Bottleneck):
            return f'supports only BasicBlock and Bottleneck, got block={block}'
    name = getattr(model.attention, 'keywords', {}).get('name') or ''
    if _PARTS.fullmatch(name):
        return f'would mistake attention called {name!r} for a part of the network; rename it'
    return None


def _fold(
    params: Mapping[str, Any], stats: Mapping[str, Any], epsilon: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Folds one module's parameters and statistics; `bn<x>` follows `conv<x>`."""
    new_params, new_stats = dict(params), dict(stats)
    for name, inner in stats.items():
        conv = name.replace('bn', 'conv', 1)
        if name.startswith('bn') and conv in params:
            scale, bias = params[name]['scale'], params[name]['bias']
            factor = scale * jax.lax.rsqrt(inner['var'] + epsilon)
            new_params[conv] = {leaf: value * factor for leaf, value in params[conv].items()}
            new_params[name] = {'bias': bias - inner['mean'] * factor}
            del new_stats[name]
        elif _PARTS.fullmatch(name):
            new_params[name], new_stats[name] = _fold(params[name], inner, epsilon)
            if not new_stats[name]:
                del new_stats[name]
    return new_params, new_stats
