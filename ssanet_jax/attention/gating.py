"""What several attention blocks share: hidden layers, maxima, applied gates."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers


def require_choice(block: str, option: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(
            f'{block}({option}={value!r}) is not known; '
            f'choose one of {", ".join(map(repr, choices))}.'
        )


def hidden_width(block: str, channels: int, ratio: int, *, at_least: int = 0) -> int:
    """Channels // ratio, but not less than `at_least`; raises ValueError where that is nothing."""
    hidden = max(at_least, channels // ratio) if ratio > 0 else 0
    if hidden == 0:
        raise ValueError(
            f'{block}(ratio={ratio}) leaves no hidden unit for {channels} channels; '
            f'choose a ratio from 1 to {channels}.'
        )
    return hidden


def dense(x: jax.Array, features: int, name: str, *, bias: bool = True) -> jax.Array:
    """A dense layer over the last axis in the dtype of x; call inside a compact method."""
    return nn.Dense(features, use_bias=bias, dtype=x.dtype, name=name)(x)


def excite(z: jax.Array, hidden: int, *, bias: bool = True) -> jax.Array:
    """fc2(relu(fc1(z))) over the last axis, as wide as z; call inside a compact method."""
    return dense(nn.relu(dense(z, hidden, 'fc1', bias=bias)), z.shape[-1], 'fc2', bias=bias)


def largest(x: jax.Array, axis: int | tuple[int, int], *, keepdims: bool = False) -> jax.Array:
    """The maxima of x over one axis or two neighbouring ones; the first of equals has the gradient.

    That of `jnp.max` goes to the values that equal the maximum: to none, as NaN, where a compiler
    computes x twice and rounds it in two ways.
    """
    axes = {a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,))}
    first, last = min(axes), max(axes)
    flat = x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    index = jnp.argmax(flat, axis=first, keepdims=True)
    place = jax.lax.broadcasted_iota(index.dtype, flat.shape, first)
    y = jnp.sum(jnp.where(place == index, flat, jnp.zeros_like(flat)), axis=first)
    return jnp.expand_dims(y, tuple(axes)) if keepdims else y


def apply_gate(block: nn.Module, gate: jax.Array, x: jax.Array) -> jax.Array:
    """Gate * x in the dtype of x [N, H, W, C]; `gate`, which broadcasts over x, is sown."""
    block.sow('intermediates', 'gate', gate)
    return (gate * x.astype(layers.reduction_dtype(x.dtype))).astype(x.dtype)
