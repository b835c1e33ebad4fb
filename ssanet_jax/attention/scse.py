"""Concurrent spatial and channel SE (Roy et al. 2018, https://arxiv.org/abs/1803.02579)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating
from ssanet_jax.attention.squeeze_excite import SEBlock


class SSEBlock(gating.AttentionBlock):
    """Gates each pixel by its own channels (the paper's sSE)::

        m = sigmoid(<w, x[h, w, :]> + b)                     [N, H, W, 1]
        y = m * x                                            [N, H, W, C], dtype of x

    C + 1 parameters; the bias follows implementations such as segmentation_models_pytorch. `gate`
    is sown.

    Raises:
      ValueError: x is not 4-D.
      TypeError: x is not floating-point.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        del train
        layers.require_feature_map(x, 'SSEBlock')
        logit = gating.dense(x.astype(layers.reduction_dtype(x.dtype)), 1, 'conv')
        return gating.apply_gate(self, nn.sigmoid(logit), x)


class SCSEBlock(gating.AttentionBlock):
    """Sum or maximum of `SSEBlock` and `SEBlock`::

        y = sSE(x) + SE(x)    or    max(sSE(x), SE(x))       [N, H, W, C], dtype of x

    The paper has the sum, its extension (https://arxiv.org/abs/1808.08127) the maximum. `sse/gate`
    and `se/gate` are sown.

    Attributes:
      ratio: see `SEBlock`; 2 in the paper, 16 in segmentation_models_pytorch.
      combine: 'sum' or 'max'.

    Raises:
      ValueError: x is not 4-D, has fewer channels than `ratio`, or `combine` is unknown.
      TypeError: x is not floating-point.
    """

    ratio: int = 2
    combine: Literal['sum', 'max'] = 'sum'

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        gating.require_choice('SCSEBlock', 'combine', self.combine, ('sum', 'max'))
        layers.require_feature_map(x, 'SCSEBlock')
        wide = x.astype(layers.reduction_dtype(x.dtype))  # so that the result is rounded once
        spatial = SSEBlock(name='sse')(wide, train=train)
        channel = SEBlock(self.ratio, name='se')(wide, train=train)
        y = spatial + channel if self.combine == 'sum' else jnp.maximum(spatial, channel)
        return y.astype(x.dtype)
