"""Squeeze and Spatial Attention, the block of SSANet."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import gating
from ssanet_jax.layers.affine_map import AffineMap, dot_highest, gated_affine, pixelwise_dot

_Reduce = dict[str, Callable[..., jax.Array]]
_SQUEEZE: _Reduce = {'mean': jnp.mean, 'max': gating.largest}
_COMBINE: _Reduce = {'sum': jnp.sum, 'mean': jnp.mean}
_GATE = {'sigmoid': 1, '2sigmoid': 2}


class SSABlock(nn.Module):
    """Scales each pixel by how well it agrees with the image's channel means.

        z[c]    = mean_{h,w} x[h, w, c]                 squeeze,  [N, 1, 1, C]
        s[h, w] = sum_c z[c] * x[h, w, c]               saliency, [N, H, W, 1]
        y       = sigmoid(BatchNorm(s)) * x             [N, H, W, C], dtype of x

    Two parameters for any C (SSANet, section 3). Both reductions and BatchNorm run in
    float32 whatever the dtype of x, or in float64 where x is float64.

    The authors' released code averages over c where the paper sums; BatchNorm cancels
    that factor C except through its epsilon, which matters where s is tiny. Their
    grouped form, one map for every 32 consecutive channels, is `channels_per_map=32`.

    gate='2sigmoid' is 2 sigmoid(BatchNorm(s)) with a scale that starts at 0, so that y = x
    bit for bit at the start: the block can be put into a trained network (not in the paper).

    `saliency` (s) and `gate` (what x is multiplied by) are sown, both [N, H, W, groups]:
    pass `mutable=['intermediates']` to `apply` to get them.

    Attributes:
      squeeze: 'mean' or 'max' over the pixels of each channel.
      combine: 'sum' (the paper) or 'mean' (the released code) over the channels.
      groups: number of maps; divides C. The block has 2 * groups parameters.
      channels_per_map: instead, the size of a group: the largest that divides C, up to this.
      gate: 'sigmoid' or '2sigmoid'.
      norm: makes the BatchNorm; give it `axis_name` to share statistics over devices.

    Raises:
      ValueError: x is not 4-D, groups do not divide C, or an option is unknown.
      TypeError: x is not floating-point.

    >>> x = jnp.ones((2, 8, 8, 64))
    >>> variables = SSABlock().init(jax.random.key(0), x, train=False)
    >>> SSABlock().apply(variables, x, train=False).shape
    (2, 8, 8, 64)
    """

    squeeze: Literal['mean', 'max'] = 'mean'
    combine: Literal['sum', 'mean'] = 'sum'
    groups: int = 1
    channels_per_map: int = 0
    gate: Literal['sigmoid', '2sigmoid'] = 'sigmoid'
    norm: Callable[..., nn.Module] = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array | AffineMap, *, train: bool) -> jax.Array:
        if isinstance(x, AffineMap):
            return self._folded(x, train=train)
        layers.require_feature_map(x, 'SSABlock')
        groups = self.num_maps(x.shape[-1])
        n, h, w, _ = x.shape
        grouped = x.astype(layers.reduction_dtype(x.dtype)).reshape(n, h, w, groups, -1)

        z = _SQUEEZE[self.squeeze](grouped, axis=(1, 2), keepdims=True)  # [N, 1, 1, G, C/G]
        s = _COMBINE[self.combine](z * grouped, axis=-1)  # [N, H, W, G]
        gate = _GATE[self.gate] * nn.sigmoid(self._logit(s, train=train))
        return (gate[..., None] * grouped).reshape(x.shape).astype(x.dtype)

    @property
    def takes_affine(self) -> bool:
        """Whether x may be an `AffineMap`, whose pixels are never computed without a gate."""
        return self.squeeze == 'mean'

    def _folded(self, x: AffineMap, *, train: bool) -> jax.Array:
        """The same from the h of x = h W + b: s = <h, W z> + <b, z>, a map for each group."""
        groups = self.num_maps(x.weight.shape[1])
        if not self.takes_affine:
            raise ValueError(
                f'SSABlock(squeeze={self.squeeze!r}) needs every pixel; pass x.value().'
            )
        maps = x.split(groups)
        saliencies = []
        for part in maps:
            z = dot_highest(part.mean, part.weight) + part.bias  # [N, C/G]
            s = pixelwise_dot(part.h, dot_highest(z, part.weight.T))  # [N, H, W]
            s += dot_highest(z, part.bias)[:, None, None]
            saliencies.append(s / z.shape[-1] if self.combine == 'mean' else s)
        logit = self._logit(jnp.stack(saliencies, axis=-1), train=train)  # [N, H, W, G]
        factor = _GATE[self.gate]
        gated = [
            gated_affine(part.h, logit[..., g, None], factor * part.weight, factor * part.bias)
            for g, part in enumerate(maps)
        ]
        return jnp.concatenate(gated, axis=-1)

    def _logit(self, s: jax.Array, *, train: bool) -> jax.Array:
        # s is a sum over C whose mean can dwarf its deviation: E[s^2] - E[s]^2 would not do.
        norm = partial(self.norm, use_fast_variance=False)
        if self.gate == '2sigmoid':
            norm = partial(norm, scale_init=nn.initializers.zeros)
        logit = layers.batch_norm(s, train=train, name='bn', norm=norm)
        self.sow('intermediates', 'saliency', s)
        self.sow('intermediates', 'gate', _GATE[self.gate] * nn.sigmoid(logit))
        return logit

    def num_maps(self, channels: int) -> int:
        """The number of groups for C channels; raises ValueError for options that cannot be."""
        for option, choices in (('squeeze', _SQUEEZE), ('combine', _COMBINE), ('gate', _GATE)):
            gating.require_choice('SSABlock', option, getattr(self, option), tuple(choices))
        divisors = [d for d in range(1, channels + 1) if channels % d == 0]
        size = self.channels_per_map
        if size and (size < 0 or self.groups != 1):
            raise ValueError(
                f'SSABlock(groups={self.groups}, channels_per_map={size}) says twice how to group, '
                'or not at all; give channels_per_map above 0 and leave groups at 1, or '
                'channels_per_map=0.'
            )
        if size:
            return channels // max(d for d in divisors if d <= size)
        if self.groups not in divisors:
            raise ValueError(
                f'SSABlock(groups={self.groups}) cannot split {channels} channels evenly; '
                f'groups that can: {", ".join(map(str, divisors))}.'
            )
        return self.groups
