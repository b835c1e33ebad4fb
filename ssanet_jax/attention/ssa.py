"""Squeeze and Spatial Attention, the block of SSANet."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.affine_map import AffineMap, agreement, exact_dot, gated_affine

_Reduce = dict[str, Callable[..., jax.Array]]
_SQUEEZE: _Reduce = {'mean': jnp.mean, 'max': jnp.max}
_COMBINE: _Reduce = {'sum': jnp.sum, 'mean': jnp.mean}


class SSABlock(nn.Module):
    """Scales each pixel by how well it agrees with the image's channel means.

        z[c]    = mean_{h,w} x[h, w, c]                 squeeze,  [N, 1, 1, C]
        s[h, w] = sum_c z[c] * x[h, w, c]               saliency, [N, H, W, 1]
        y       = sigmoid(BatchNorm(s)) * x             [N, H, W, C], dtype of x

    Two parameters for any C (SSANet, section 3). Both reductions and BatchNorm run in
    float32 whatever the dtype of x, or in float64 where x is float64.

    The authors' released code averages over c where the paper sums; BatchNorm cancels
    that factor C except through its epsilon, which matters where s is tiny. Their
    grouped form, one map for every C / groups consecutive channels, is `groups`.

    `saliency` (s) and `gate` (the sigmoid's output) are sown, both [N, H, W, groups]:
    pass `mutable=['intermediates']` to `apply` to get them.

    Attributes:
      squeeze: 'mean' or 'max' over the pixels of each channel.
      combine: 'sum' (the paper) or 'mean' (the released code) over the channels.
      groups: number of maps; divides C. The block has 2 * groups parameters.
      norm: makes the BatchNorm; give it `axis_name` to share statistics over devices.

    Raises:
      ValueError: x is not 4-D, groups does not divide C, or an option is unknown.
      TypeError: x is not floating-point.

    >>> x = jnp.ones((2, 8, 8, 64))
    >>> variables = SSABlock().init(jax.random.key(0), x, train=False)
    >>> SSABlock().apply(variables, x, train=False).shape
    (2, 8, 8, 64)
    """

    squeeze: Literal['mean', 'max'] = 'mean'
    combine: Literal['sum', 'mean'] = 'sum'
    groups: int = 1
    norm: Callable[..., nn.Module] = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array | AffineMap, *, train: bool) -> jax.Array:
        if isinstance(x, AffineMap):
            return self._folded(x, train=train)
        layers.require_feature_map(x, 'SSABlock')
        self._check_options(x.shape[-1])
        n, h, w, _ = x.shape
        grouped = x.astype(layers.stats_dtype(x.dtype)).reshape(n, h, w, self.groups, -1)

        z = _SQUEEZE[self.squeeze](grouped, axis=(1, 2), keepdims=True)  # [N, 1, 1, G, C/G]
        s = _COMBINE[self.combine](z * grouped, axis=-1)  # [N, H, W, G]
        gate = nn.sigmoid(self._logit(s, train=train))
        return (gate[..., None] * grouped).reshape(x.shape).astype(x.dtype)

    @property
    def takes_affine(self) -> bool:
        """Whether x may be an `AffineMap`, whose pixels are never computed without a gate."""
        return self.squeeze == 'mean'

    def _folded(self, x: AffineMap, *, train: bool) -> jax.Array:
        """The same from the h of x = h W + b: s = <h, W z> + <b, z>, a map for each group."""
        self._check_options(x.weight.shape[1])
        if not self.takes_affine:
            raise ValueError(
                f'SSABlock(squeeze={self.squeeze!r}) needs every pixel; pass x.value().'
            )
        maps = x.split(self.groups)
        saliencies = []
        for part in maps:
            z = exact_dot(part.mean, part.weight) + part.bias  # [N, C/G]
            s = agreement(part.h, exact_dot(z, part.weight.T))  # [N, H, W]
            s += exact_dot(z, part.bias)[:, None, None]
            saliencies.append(s / z.shape[-1] if self.combine == 'mean' else s)
        logit = self._logit(jnp.stack(saliencies, axis=-1), train=train)  # [N, H, W, G]
        gated = [
            gated_affine(part.h, logit[..., g, None], part.weight, part.bias)
            for g, part in enumerate(maps)
        ]
        return jnp.concatenate(gated, axis=-1)

    def _logit(self, s: jax.Array, *, train: bool) -> jax.Array:
        # s is a sum over C whose mean can dwarf its deviation: E[s^2] - E[s]^2 would not do.
        norm = partial(self.norm, use_fast_variance=False)
        logit = layers.normalize(s, train=train, name='bn', norm=norm)
        self.sow('intermediates', 'saliency', s)
        self.sow('intermediates', 'gate', nn.sigmoid(logit))
        return logit

    def _check_options(self, channels: int) -> None:
        for option, choices in (('squeeze', _SQUEEZE), ('combine', _COMBINE)):
            if getattr(self, option) not in choices:
                raise ValueError(
                    f'SSABlock({option}={getattr(self, option)!r}) is not known; '
                    f'choose one of {", ".join(map(repr, choices))}.'
                )
        if self.groups < 1 or channels % self.groups:
            divisors = [g for g in range(1, channels + 1) if channels % g == 0]
            raise ValueError(
                f'SSABlock(groups={self.groups}) cannot split {channels} channels evenly; '
                f'groups that can: {", ".join(map(str, divisors))}.'
            )
