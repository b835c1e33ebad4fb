"""The folded form of a 1x1 convolution, its BatchNorm, attention, sum and ReLU.

The same function and the same parameters as the plain form, at a fraction of its memory
traffic: statistics, squeeze and saliency are computed from the input of the convolution, and
neither its output nor a normalized copy is kept. docs/performance.md has the algebra.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention.ssa import SSABlock
from ssanet_jax.layers.affine_map import AffineMap, dot_highest, moments
from ssanet_jax.models import folded_attention

ModuleFn = Callable[..., nn.Module]
ModuleT = TypeVar('ModuleT', bound=nn.Module)
Tail = Literal['auto', 'folded', 'plain']


def plain_form(model: ModuleT) -> ModuleT:
    """Copy of the network with plain tails, in which every layer is a module call."""
    return model.clone(tail='plain') if hasattr(model, 'tail') else model


# Pixels in the batch, per input channel, from which folding pays in training: with fewer, second
# moments and arrays of the kernel's size cost more than folding saves.
_PIXELS_PER_CHANNEL = 8
_PIXELS_PER_CHANNEL_WITH_SSA = 3
_MOST_GROUPS = 2  # of SSA; each needs a wide array


def chooses_fold(
    tail: Tail,
    shape: tuple[int, ...],
    features: int,
    *,
    kernel_size: int = 1,
    norm: ModuleFn,
    attention: ModuleFn | None,
    train: bool,
) -> bool:
    """Whether to fold a convolution of h [N, H, W, K] and the layers after it.

    'folded' and 'plain' force that form. 'auto' folds where the algebra applies, with up to two
    groups of SSA, where the output has at least twice the channels of the input, and in training
    where there are enough pixels: the rule that the TPU v5e and H100 compilers' counts give, see
    docs/performance.md.

    Raises:
      ValueError: `tail` is unknown, or is 'folded' where the algebra does not apply.
    """
    if tail not in get_args(Tail):
        raise ValueError(f"tail={tail!r} is not known; choose 'auto', 'folded' or 'plain'.")
    if tail == 'plain':
        return False
    if kernel_size != 1 or not _can_fold(norm, attention):
        if tail == 'folded':
            raise ValueError(
                "tail='folded' covers blocks that end in a 1x1 convolution and this package's "
                "BatchNorm, with no attention, SSABlock(squeeze='mean'), SEBlock or ECABlock; "
                "choose 'auto', which folds where it can, or 'plain'."
            )
        return False
    if tail == 'folded':
        return True
    *pixels, k = shape
    groups = _groups(attention, features)
    if features < 2 * k or groups > _MOST_GROUPS:
        return False
    least = _PIXELS_PER_CHANNEL_WITH_SSA if groups else _PIXELS_PER_CHANNEL
    return not train or math.prod(pixels) >= least * k


def _can_fold(norm: ModuleFn, attention: ModuleFn | None) -> bool:
    """Whether the algebra applies: this package's BatchNorm, exactly, and foldable attention."""
    if layers.unwrap_partial(norm) not in (layers.BatchNorm, layers.FoldedBatchNorm):
        return False
    return attention is None or folded_attention.can_fold(attention)


def _groups(attention: ModuleFn | None, features: int) -> int:
    """Groups of SSA; 0 without SSA."""
    block = None if attention is None else folded_attention.unbound(attention)
    return block.count_groups(features) if isinstance(block, SSABlock) else 0


class FoldedTail(nn.Module):
    """relu(attention(BatchNorm(h W)) + shortcut), folded.

    Attributes:
      features: C.
      attention: makes a block with a folded form, see `folded_attention.can_fold`, or None.
      norm: makes a `layers.BatchNorm`, or a `layers.FoldedBatchNorm`.
      norm_options: further options of `norm`, such as `scale_init`.
      conv, bn: names of the submodules that hold W and the BatchNorm.
      drop_rate: see `layers.drop_path`, of what is added to the shortcut.

    In float32 its output is exact to 1e-6 of its norm where h is a ReLU's output, and to 1e-5
    where means of h exceed deviations 140 times. The plain form, which squares before it
    subtracts, is then exact to 1e-3 only. Constant inputs give finite gradients. (Measured
    against float64, see docs/performance.md.)

    Differentiable in forward and reverse mode; in bfloat16 in reverse mode only. There, an eager
    `jax.jvp` raises a TypeError that says what to set; under `jax.jit` and `jax.linearize` JAX
    raises its own, about a custom_vjp function.

    With `nn.share_scope` the submodules become those of the calling module; `capture_intermediates`
    then records two outputs of that module, and none of conv and bn.
    """

    features: int
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm
    norm_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conv: str = 'conv3'
    bn: str = 'bn3'
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, h: jax.Array, shortcut: jax.Array, *, train: bool) -> jax.Array:
        """Returns [N, H, W, C] from h [N, H, W, K] and shortcut [N, H, W, C]."""
        y: Any = fold(
            h,
            self.features,
            train=train,
            norm=self.norm,
            conv=self.conv,
            bn=self.bn,
            **self.norm_options,
        )
        if self.attention is None:
            y = y.value()
        else:
            y = folded_attention.folded(self.attention)(y, train)
        return layers.relu(layers.drop_path(y, self.drop_rate, train=train) + shortcut)


def fold(
    h: jax.Array,
    features: int,
    *,
    train: bool,
    conv: str,
    bn: str,
    norm: ModuleFn = layers.BatchNorm,
    **norm_options: Any,
) -> AffineMap:
    """BatchNorm(h W) as one affine map of h, with BatchNorm's running statistics updated.

    Call inside a compact method: the submodules `conv` and `bn` have the parameters and
    statistics of `nn.Conv` and `nn.BatchNorm`. In training the map's h is centered, which
    BatchNorm cancels.

    Args:
      h: [N, H, W, K].
      features: C.
      train: take the statistics of the batch.
      conv, bn: names of the submodules.
      norm: makes a `layers.BatchNorm`, or a `layers.FoldedBatchNorm`, which cannot train.
      **norm_options: further options of `norm`.
    """
    stats = layers.reduction_dtype(h.dtype)
    kernel = _Kernel(features, name=conv)(h.shape[-1]).astype(stats)  # [K, C]
    layer: Any = norm(use_running_average=not train, dtype=stats, name=bn, **norm_options)
    if train:
        h, shift, mean, second = moments(h)
        product = _product_moments(mean, second, kernel)
        factor, offset = layer.affine(features, product, shift=dot_highest(shift, kernel))
    else:
        mean = jnp.mean(h.astype(stats), axis=(1, 2))  # [N, K]
        factor, offset = layer.affine(features, None)
    return AffineMap(h, mean, kernel * factor, offset)


class _Kernel(nn.Module):
    """Holds the kernel of `nn.Conv(features, (1, 1), use_bias=False)`."""

    features: int

    @nn.compact
    def __call__(self, channels: int) -> jax.Array:
        shape = 1, 1, channels, self.features
        kernel = self.param('kernel', layers.he_normal, shape, jnp.float32)
        return kernel[0, 0]


def _product_moments(
    means: jax.Array, second: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance [C] of h kernel, from means [N, K] and E[h^T h] [K, K] of a centered h."""
    mean = jnp.mean(means, axis=0)  # [K]
    covariance = second - mean[:, None] * mean  # [K, K]
    var = jnp.sum(kernel * dot_highest(covariance, kernel), axis=0)
    return dot_highest(mean, kernel), jnp.maximum(var, 0)
