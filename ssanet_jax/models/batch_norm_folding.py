"""Trained networks in the form that is fastest to apply."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.googlenet import GoogLeNet
from ssanet_jax.models.mobilenet import MobileNet, MobileNetV2
from ssanet_jax.models.network import Network
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.models.vgg import VGG

# Networks in which every BatchNorm follows a convolution. In the others some come before.
_FOLDABLE = (GoogLeNet, MobileNet, MobileNetV2, ResNet, VGG)
# How those name what holds convolutions and BatchNorms; attention, which may have its own, is not
# among them.
_PARTS = (
    'branch',
    'conv',
    'depthwise',
    'downsample',
    'expand',
    'head',
    'inception',
    'layer',
    'pointwise',
    'project',
    'stem',
)


def for_inference(
    model: Network, variables: Mapping[str, Any]
) -> tuple[Network, Mapping[str, Any]]:
    """The model and variables with BatchNorms folded, where that is known and gives the same.

    Not in bfloat16, in which folded kernels would be rounded to other numbers.
    """
    if model.dtype == jnp.bfloat16 or type(model) not in _FOLDABLE:
        return model, variables
    return fold_batch_norm(model, variables)


def fold_batch_norm(
    model: nn.Module, variables: Mapping[str, Any]
) -> tuple[Network, dict[str, Any]]:
    """Folds each BatchNorm that follows a convolution into its kernel, for inference only.

        BatchNorm(conv(x, kernel)) = conv(x, kernel * factor) + offset

    Attention's own BatchNorms stay: SSA's normalises a saliency, not a convolution, and is read
    from the input of the last 1x1 convolution, see `models.tail`.

    Args:
      model: a ResNet, VGG, GoogLeNet or MobileNet made by `create_model`, with this package's
        BatchNorm. Pre-activation ResNets, DenseNets and Residual Attention Networks have
        BatchNorms in front of convolutions, which a ReLU keeps from being folded.
      variables: its 'params' and 'batch_stats'.

    Returns:
      A model to call with train=False, and its variables. Logits equal those of `model` up to
      rounding, 1e-5 relative in float32.

    Raises:
      TypeError: the model is another network, or its BatchNorm is not this package's.

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
    if not isinstance(model, Network) or type(model) not in _FOLDABLE:
        raise TypeError(
            f'fold_batch_norm knows {", ".join(known.__name__ for known in _FOLDABLE)}, whose '
            f'convolutions feed BatchNorms, got {type(model).__name__}.'
        )
    layer = model.norm(use_running_average=True, parent=None)
    if not isinstance(layer, layers.BatchNorm):
        raise TypeError(
            f"fold_batch_norm knows this package's BatchNorm, got {type(layer).__name__}; build "
            'the model without norm=.'
        )
    fold = jax.jit(_fold, static_argnames='epsilon')
    params, stats = fold(variables['params'], variables['batch_stats'], epsilon=layer.epsilon)
    options: dict[str, Any] = {'zero_init_residual': False} if isinstance(model, ResNet) else {}
    folded = model.clone(norm=layers.FoldedBatchNorm, **options)
    return folded, {'params': params, 'batch_stats': stats}


def _fold(
    params: Mapping[str, Any], stats: Mapping[str, Any], epsilon: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """One module's parameters and statistics; `bn<x>` follows `conv<x>` by the naming rule."""
    new_params, new_stats = dict(params), dict(stats)
    for name, inner in stats.items():
        conv = name.replace('bn', 'conv', 1)
        if name.startswith('bn') and conv in params:
            scale, bias = params[name]['scale'], params[name]['bias']
            factor = scale * jax.lax.rsqrt(inner['var'] + epsilon)
            new_params[conv] = {leaf: value * factor for leaf, value in params[conv].items()}
            new_params[name] = {'bias': bias - inner['mean'] * factor}
            del new_stats[name]
        elif name.startswith(_PARTS):
            new_params[name], new_stats[name] = _fold(params[name], inner, epsilon)
            if not new_stats[name]:
                del new_stats[name]
    return new_params, new_stats
