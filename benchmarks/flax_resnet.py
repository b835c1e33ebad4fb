"""Baselines: ResNet-50, SE-ResNet-50 and SSA-ResNet-50 written with flax's layers.

Uses `nn.Conv`, `nn.BatchNorm`, `nn.relu` and `nn.max_pool`, and attention by its formula; imports
nothing of ssanet_jax.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

Dtype = jax.typing.DTypeLike
batch_norm = partial(nn.BatchNorm, momentum=0.9, epsilon=1e-5)


class SE(nn.Module):
    """Scales each channel by a gate computed from all channels' means, with ratio 16."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        z = jnp.mean(x, axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
        z = nn.relu(nn.Dense(x.shape[-1] // 16, dtype=x.dtype)(z))
        return x * nn.sigmoid(nn.Dense(x.shape[-1], dtype=x.dtype)(z))


class SSA(nn.Module):
    """Scales each pixel by a gate computed from its product with all channels' means."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        wide = x.astype(jnp.float32)
        z = jnp.mean(wide, axis=(1, 2), keepdims=True)  # [N, 1, 1, C]
        s = jnp.sum(z * wide, axis=-1, keepdims=True)  # [N, H, W, 1]
        gate = nn.sigmoid(batch_norm(use_running_average=not train, dtype=jnp.float32)(s))
        return (gate * wide).astype(x.dtype)


class Bottleneck(nn.Module):
    """1x1 reduce, 3x3, 1x1 expand, attention, sum and ReLU."""

    width: int
    stride: int = 1
    attention: Callable[[], nn.Module] | None = None
    dtype: Dtype = jnp.bfloat16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        conv = partial(nn.Conv, use_bias=False, dtype=self.dtype)
        norm = partial(batch_norm, use_running_average=not train, dtype=self.dtype)
        strides = (self.stride, self.stride)
        y = nn.relu(norm()(conv(self.width, (1, 1))(x)))
        y = nn.relu(norm()(conv(self.width, (3, 3), strides, padding=((1, 1), (1, 1)))(y)))
        y = norm()(conv(4 * self.width, (1, 1))(y))
        if self.attention is not None:
            y = self.attention()(y, train)
        if x.shape != y.shape:
            x = norm()(conv(4 * self.width, (1, 1), strides)(x))
        return nn.relu(y + x)


class ResNet50(nn.Module):
    """Images [N, H, W, 3] to logits [N, 1000], v1.5."""

    attention: Callable[[], nn.Module] | None = None
    dtype: Dtype = jnp.bfloat16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        padding = ((3, 3), (3, 3))
        x = x.astype(self.dtype)
        x = nn.Conv(64, (7, 7), (2, 2), padding=padding, use_bias=False, dtype=self.dtype)(x)
        x = nn.relu(batch_norm(use_running_average=not train, dtype=self.dtype)(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, size in enumerate((3, 4, 6, 3)):
            for index in range(size):
                stride = 2 if stage and not index else 1
                x = Bottleneck(64 * 2**stage, stride, self.attention, self.dtype)(x, train)
        x = jnp.mean(x, axis=(1, 2))
        return nn.Dense(1000, dtype=self.dtype)(x).astype(jnp.float32)
