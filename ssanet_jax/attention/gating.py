"""Base classes and helpers of the attention blocks."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers


class AttentionBlock(layers.ValueModule, kw_only=True):
    """Base class of the attention blocks.

    Attributes:
      train: whether BatchNorm normalizes by the statistics of the batch, and updates the running
        ones; either this or the argument of `__call__` is given, as in `nn.merge_param`.
    """

    train: bool | None = None


class ChannelGateBlock(AttentionBlock):
    """Base class of the blocks that scale each channel by a function of all channels' means.

    `gate` is sown, [N, 1, 1, C].
    """

    def gate(self, z: jax.Array) -> jax.Array:
        """Computes the factors [N, C] from the means z [N, C]; called in a compact method."""
        raise NotImplementedError

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train  # no BatchNorm
        layers.require_feature_map(x, type(self).__name__)
        z = jnp.mean(x.astype(layers.reduction_dtype(x.dtype)), axis=(1, 2))  # [N, C]
        return apply_gate(self, self.gate(z)[:, None, None], x)


class BatchNormBlock(AttentionBlock, kw_only=True):
    """Base class of the attention blocks with BatchNorm.

    Attributes:
      norm: makes each BatchNorm.
      axis_name: mapped axis over which BatchNorm averages its statistics.
      momentum: share of the old running statistics kept in an update.
      epsilon: added to the variance.

    `axis_name`, `momentum` and `epsilon` default to those of `norm`: None, 0.9 and 1e-5 for
    `layers.BatchNorm`.
    """

    norm: Callable[..., nn.Module] = layers.BatchNorm
    axis_name: str | None = None
    momentum: float | None = None
    epsilon: float | None = None

    @property
    def norm_factory(self) -> Callable[..., nn.Module]:
        """`norm` with the options that this block was given."""
        options = {name: getattr(self, name) for name in ('axis_name', 'momentum', 'epsilon')}
        return layers.ValuePartial(self.norm, **{k: v for k, v in options.items() if v is not None})


def require_choice(block: str, option: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f'{block}({option}={value!r}) is not known; '
            f'choose one of {", ".join(map(repr, choices))}.'
        )


def hidden_width(block: str, channels: int, ratio: int, *, at_least: int = 0) -> int:
    """max(channels // ratio, at_least); raises ValueError where that is 0."""
    hidden = max(at_least, channels // ratio) if ratio > 0 else 0
    if hidden == 0:
        raise ValueError(
            f'{block}(ratio={ratio}) leaves no hidden unit for {channels} channels; '
            f'choose a ratio from 1 to {channels}.'
        )
    return hidden


def count_groups(channels: int, num_groups: int, group_size: int) -> int:
    """Groups of SSA: `num_groups`, or that of the largest groups of up to `group_size` channels.

    Raises:
      ValueError: both are given, or `num_groups` does not divide `channels`.
    """
    divisors = [d for d in range(1, channels + 1) if channels % d == 0]
    if group_size and (group_size < 0 or num_groups != 1):
        raise ValueError(
            f'SSABlock(num_groups={num_groups}, group_size={group_size}): expected num_groups, or '
            'a group_size above 0 with num_groups=1.'
        )
    if group_size:
        return channels // max(d for d in divisors if d <= group_size)
    if num_groups not in divisors:
        raise ValueError(
            f'SSABlock(num_groups={num_groups}) cannot split {channels} channels evenly; choose '
            f'one of {", ".join(map(str, divisors))}.'
        )
    return num_groups


def dense(x: jax.Array, features: int, name: str, *, bias: bool = True) -> jax.Array:
    """Dense layer over the last axis in the dtype of x; call inside a compact method."""
    return nn.Dense(features, use_bias=bias, dtype=x.dtype, name=name)(x)


def excite(z: jax.Array, hidden: int, *, bias: bool = True) -> jax.Array:
    """fc2(relu(fc1(z))), of the width of z; call inside a compact method."""
    return dense(nn.relu(dense(z, hidden, 'fc1', bias=bias)), z.shape[-1], 'fc2', bias=bias)


def largest(x: jax.Array, axis: int | tuple[int, int], *, keepdims: bool = False) -> jax.Array:
    """Maxima over one axis or two adjacent ones, with the gradient to the first of equal values.

    `jnp.max` sends it to all values equal to the maximum, and gives NaN where there are none
    because the compiler computed x twice with different rounding.
    """
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    first, last = min(axes), max(axes)
    size = math.prod(x.shape[first : last + 1])
    flat = x.reshape(*x.shape[:first], size, *x.shape[last + 1 :])
    index = jnp.argmax(flat, axis=first, keepdims=True)
    place = jax.lax.broadcasted_iota(index.dtype, flat.shape, first)
    y = jnp.sum(jnp.where(place == index, flat, jnp.zeros_like(flat)), axis=first)
    return jnp.expand_dims(y, tuple(axes)) if keepdims else y


def apply_gate(block: nn.Module, gate: jax.Array, x: jax.Array) -> jax.Array:
    """Returns gate * x in the dtype of x [N, H, W, C]; sows `gate`, which broadcasts over x."""
    block.sow('intermediates', 'gate', gate)
    return (gate * x.astype(layers.reduction_dtype(x.dtype))).astype(x.dtype)
