"""Gather-Excite (Hu et al. 2018, https://arxiv.org/abs/1810.12348)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating


class GEBlock(gating.BatchNormBlock):
    """Gates each value by the neighborhood in its channel::

        z = gather(x), one value for every extent x extent pixels       [N, h, w, C]
        g = sigmoid(resize(excite(z)))                                  [N, H, W, C]
        y = g * x                                                       [N, H, W, C], dtype of x

    The default is the paper's GE-theta-minus; GE-theta is gather='conv', and GE-theta-plus adds
    excite='mlp'. gather='mean' averages windows of 2 extent - 1 pixels, padding excluded; 'conv'
    applies log2(extent) depthwise 3x3 convolutions of stride 2 with BatchNorm, and ReLU between
    them. The resize is nearest-neighbor, as in timm. `gate` is sown.

    Attributes:
      extent: 2, 4 or 8 pixels, or 0 for the whole map. With 'conv' the latter is one depthwise
        convolution of the map's size, whose parameters depend on the size of the images.
      gather: 'mean' or 'conv'.
      excite: 'none', or 'mlp', SE's MLP with C // ratio hidden units.
      ratio: see `excite`.
      norm, axis_name, momentum, epsilon, train: see `gating.BatchNormBlock`.

    Raises:
      ValueError: x is not 4-D, an option is unknown, or excite='mlp' and C is below `ratio`.
      TypeError: x is not floating-point.
    """

    extent: int = 0
    gather: Literal['mean', 'conv'] = 'mean'
    excite: Literal['none', 'mlp'] = 'none'
    ratio: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool | None = None) -> jax.Array:
        train = nn.merge_param('train', self.train, train)
        layers.require_feature_map(x, 'GEBlock')
        gating.require_choice('GEBlock', 'extent', self.extent, (0, 2, 4, 8))
        gating.require_choice('GEBlock', 'gather', self.gather, ('mean', 'conv'))
        gating.require_choice('GEBlock', 'excite', self.excite, ('none', 'mlp'))
        z = x.astype(layers.reduction_dtype(x.dtype))
        z = self._means(z) if self.gather == 'mean' else self._convolutions(z, train=train)
        if self.excite == 'mlp':
            z = gating.excite(z, gating.hidden_width('GEBlock', x.shape[-1], self.ratio))
        return gating.apply_gate(self, nn.sigmoid(_nearest(z, *x.shape[1:3])), x)

    def _means(self, x: jax.Array) -> jax.Array:
        if self.extent == 0:
            return jnp.mean(x, axis=(1, 2), keepdims=True)
        return layers.mean_pool(x, 2 * self.extent - 1, stride=self.extent, pad=self.extent - 1)

    def _convolutions(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.extent == 0:
            return self._depthwise(x, 1, x.shape[1:3], stride=1, pad=0, train=train)
        count = self.extent.bit_length() - 1
        for number in range(1, count + 1):
            x = self._depthwise(x, number, (3, 3), stride=2, pad=1, train=train)
            x = nn.relu(x) if number < count else x
        return x

    def _depthwise(
        self,
        x: jax.Array,
        number: int,
        size: tuple[int, ...],
        *,
        stride: int,
        pad: int,
        train: bool,
    ) -> jax.Array:
        channels = x.shape[-1]
        conv = nn.Conv(
            channels,
            size,
            strides=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            feature_group_count=channels,
            use_bias=False,
            dtype=x.dtype,
            name=f'conv{number}',
        )
        return layers.batch_norm(conv(x), train=train, name=f'norm{number}', norm=self.norm_factory)


def _nearest(x: jax.Array, height: int, width: int) -> jax.Array:
    """Nearest-neighbor resize of x [N, h, w, C] to [N, H, W, C]; x itself if it is one pixel."""
    _, h, w, _ = x.shape
    if (h, w) == (1, 1):
        return x
    rows, columns = jnp.arange(height) * h // height, jnp.arange(width) * w // width
    return x[:, rows[:, None], columns]
