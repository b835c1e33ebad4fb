"""The folded form of a 1x1 convolution, its BatchNorm, attention, sum and ReLU.

The same function and the same parameters as the plain form, at a fraction of its memory
traffic: statistics, squeeze and saliency are computed from the input of the convolution, and
neither its output nor a normalised copy is kept. docs/performance.md has the algebra.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention.ssa import SSABlock
from ssanet_jax.layers.affine_map import AffineMap, dot_highest, moments
from ssanet_jax.models.folded_ssa import folded_ssa, unbound

ModuleFn = Callable[..., nn.Module]
ModuleT = TypeVar('ModuleT', bound=nn.Module)
Tail = Literal['auto', 'folded', 'plain']


def plain_form(model: ModuleT) -> ModuleT:
    """Copy of the network with plain tails, in which every layer is a module call."""
    return model.clone(tail='plain') if hasattr(model, 'tail') else model


class _Traffic(NamedTuple):
    """By how many passes over an array the two forms of a training step differ.

    From XLA's own counts for the CPU, which benchmarks/tail_traffic.py repeats over many shapes.
    """

    wide: int  # of the size of the output, that the plain form moves more
    narrow: int  # of the size of the input, that the folded form moves more
    kernel: int  # of the size of the kernel in float32, that the folded form moves more


_WITHOUT_ATTENTION = _Traffic(wide=8, narrow=10, kernel=27)
_WITH_SSA = _Traffic(wide=29, narrow=15, kernel=37)
_WIDE_PER_GROUP = 14  # that the folded form moves for each group of SSA after the first

# A low estimate of the arithmetic that a machine does in the time of a byte: accelerators do
# hundreds of operations, two CPU cores some tens.
_OPERATIONS_PER_BYTE = 30


def chooses_fold(
    tail: Tail,
    shape: tuple[int, ...],
    features: int,
    *,
    kernel_size: int = 1,
    dtype: jax.typing.DTypeLike,
    norm: ModuleFn,
    attention: ModuleFn | None,
    train: bool,
) -> bool:
    """Whether to fold a convolution of h [N, H, W, K] and the layers after it.

    'folded' and 'plain' force that form. 'auto' folds where the algebra applies, unless SSA has so
    many groups that nothing is saved, and in training only if the memory traffic saved outweighs
    the arithmetic of the second moments, see `predict`; it does not where images are few and small.

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
                "BatchNorm, with no attention or SSABlock(squeeze='mean'); choose 'auto', which "
                "folds where it can, or 'plain'."
            )
        return False
    groups = _groups(attention, features)
    if tail == 'folded' or not train:
        return tail == 'folded' or _passes_saved(groups) > 0
    *pixels, k = shape
    saved, extra = predict(math.prod(pixels), k, features, dtype, groups=groups)
    return saved * _OPERATIONS_PER_BYTE > extra


def predict(m: int, k: int, c: int, dtype: jax.typing.DTypeLike, *, groups: int) -> tuple[int, int]:
    """Bytes that folding saves in a training step, and operations that it adds.

    Args:
      m: pixels of all images together, N H W.
      k: channels before the 1x1 convolution.
      c: channels after it.
      dtype: of the activations.
      groups: of the SSA block that follows, 0 for none.
    """
    traffic = _WITH_SSA if groups else _WITHOUT_ATTENTION
    wide = _passes_saved(groups)
    activations = m * (wide * c - traffic.narrow * k) * jnp.dtype(dtype).itemsize
    return activations - 4 * traffic.kernel * k * c, 4 * m * k**2 + 6 * k**2 * c


def _passes_saved(groups: int) -> int:
    """Passes over the wide activation that folding saves."""
    traffic = _WITH_SSA if groups else _WITHOUT_ATTENTION
    return traffic.wide - _WIDE_PER_GROUP * max(groups - 1, 0)


def _can_fold(norm: ModuleFn, attention: ModuleFn | None) -> bool:
    """Whether the algebra applies: this package's BatchNorm, and SSA with squeeze='mean' or none.

    Classes are compared exactly, since a subclass may compute something else.
    """
    if layers.unwrap_partial(norm) not in (layers.BatchNorm, layers.FoldedBatchNorm):
        return False
    return attention is None or (
        layers.unwrap_partial(attention) is SSABlock and unbound(attention).squeeze == 'mean'
    )


def _groups(attention: ModuleFn | None, features: int) -> int:
    return 0 if attention is None else unbound(attention).count_groups(features)


class FoldedTail(nn.Module):
    """relu(attention(BatchNorm(h W)) + shortcut), folded.

    Attributes:
      features: C.
      attention: makes an `SSABlock` with squeeze='mean', or None.
      norm: makes a `layers.BatchNorm`, perhaps with settings, or a `layers.FoldedBatchNorm`.
      norm_options: more of its settings, as `scale_init`.
      conv, bn: names of the submodules that hold W and the BatchNorm.

    In float32 its output is exact to 1e-6 of its norm where h is a ReLU's output, and to 1e-5
    where the means of h exceed their deviations 140 times, where the plain form, which squares
    before it subtracts, is exact to 1e-3; constant inputs give finite gradients. (Measured
    against float64, see docs/performance.md.)

    With `nn.share_scope` the submodules become those of the calling module; `capture_intermediates`
    then records two outputs of that module, and none of conv and bn.
    """

    features: int
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm
    norm_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    conv: str = 'conv3'
    bn: str = 'bn3'

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
        y = y.value() if self.attention is None else folded_ssa(self.attention)(y, train)
        return layers.relu(y + shortcut)


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
    statistics of `nn.Conv` and `nn.BatchNorm`. In training the map's h is centred, which
    BatchNorm cancels.

    Args:
      h: [N, H, W, K].
      features: C.
      train: take the statistics of the batch.
      conv, bn: names of the submodules.
      norm: makes a `layers.BatchNorm`, or a `layers.FoldedBatchNorm`, which cannot train.
      **norm_options: more of its settings.
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
        kernel = self.param('kernel', layers.he_normal, (1, 1, channels, self.features))
        return kernel[0, 0]


def _product_moments(
    means: jax.Array, second: jax.Array, kernel: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean and variance [C] of h kernel, from means [N, K] and E[h^T h] [K, K] of a centred h."""
    mean = jnp.mean(means, axis=0)  # [K]
    covariance = second - mean[:, None] * mean  # [K, K]
    var = jnp.sum(kernel * dot_highest(covariance, kernel), axis=0)
    return dot_highest(mean, kernel), jnp.maximum(var, 0)
