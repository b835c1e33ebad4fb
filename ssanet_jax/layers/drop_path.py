"""Stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382)."""

import flax.linen as nn
import jax


def drop_path(y: jax.Array, rate: float, *, train: bool) -> jax.Array:
    """Drops residual branches y [N, H, W, C] of random examples in training::

        y[n] / (1 - rate) with probability 1 - rate, otherwise 0

    Call inside a compact method. Above 0, `rate` needs rngs={'dropout': key} in training. The
    scale is timm's `DropPath`; the paper scales in inference instead.
    """
    if not rate:
        return y
    drop = nn.Dropout(rate, broadcast_dims=(1, 2, 3), deterministic=not train, name='drop_path')
    return drop(y)
