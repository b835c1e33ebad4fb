"""Efficient Channel Attention (Wang et al. 2020, https://arxiv.org/abs/1910.03151)."""

import math

import flax.linen as nn
import jax

from ssanet_jax.attention import gating


class ECABlock(gating.ChannelGateBlock):
    """Scales each channel by a gate computed from the means of its k neighbors::

        z = mean_{h,w} x[h, w, :]                            [N, C]
        g = sigmoid(conv1d_k(z))                             [N, C], no bias
        t = floor(|log2(C) + beta| / gamma),   k = t if t is odd, else t + 1
        y = g * x                                            [N, H, W, C], dtype of x

    k parameters: 3 to 7 for 64 to 2048 channels. The "nearest odd" of equation 12 is rounded as in
    the authors' code; their ResNets fix k, as `kernel_size` does. `gate` is sown.

    Attributes:
      kernel_size: k, odd; 0 computes it from C.
      gamma: divisor in the rule for k.
      beta: offset in the rule for k, the paper's b.

    Raises:
      ValueError: x is not 4-D, k is even, or gamma is not above 0.
      TypeError: x is not floating-point.

    >>> x = jax.numpy.ones((2, 8, 8, 256))
    >>> variables = ECABlock().init(jax.random.key(0), x, train=False)
    >>> variables['params']['conv']['kernel'].shape
    (5, 1, 1)
    """

    kernel_size: int = 0
    gamma: float = 2.0
    beta: float = 1.0

    def gate(self, z: jax.Array) -> jax.Array:
        size = self._kernel_size(z.shape[-1])
        conv = nn.Conv(1, (size,), padding=size // 2, use_bias=False, dtype=z.dtype, name='conv')
        return nn.sigmoid(conv(z[..., None])[..., 0])

    def _kernel_size(self, channels: int) -> int:
        if self.kernel_size:
            if self.kernel_size < 1 or self.kernel_size % 2 == 0:
                raise ValueError(
                    f'ECABlock(kernel_size={self.kernel_size}) has no center; choose an odd one, '
                    'or 0 for a size that fits the channels.'
                )
            return self.kernel_size
        if self.gamma <= 0:
            raise ValueError(f'ECABlock(gamma={self.gamma}) must be above 0; the paper has 2.')
        size = int(abs(math.log2(channels) + self.beta) / self.gamma)
        return size if size % 2 else size + 1
