"""What several attention blocks share: widths of hidden layers, dense layers, applied gates."""

import flax.linen as nn
import jax

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


def apply_gate(block: nn.Module, gate: jax.Array, x: jax.Array) -> jax.Array:
    """Gate * x in the dtype of x [N, H, W, C]; `gate`, which broadcasts over x, is sown."""
    block.sow('intermediates', 'gate', gate)
    return (gate * x.astype(layers.stats_dtype(x.dtype))).astype(x.dtype)
