"""A tail alone, in both forms: what tail_traffic.py and tail_rounding.py compare."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from ssanet_jax import SSABlock, layers, ops
from ssanet_jax.models.tail import FoldedTail

ATTENTION = {'none': None, 'ssa': partial(SSABlock, name='ssa')}


class PlainTail(nn.Module):
    """The plain form of `FoldedTail`, with the same parameters."""

    features: int
    attention: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, h: jax.Array, shortcut: jax.Array, *, train: bool) -> jax.Array:
        conv = nn.Conv(
            self.features,
            (1, 1),
            use_bias=False,
            dtype=h.dtype,
            conv_general_dilated=ops.convolve,
            name='conv3',
        )
        y: Any = layers.normalize(conv(h), train=train, name='bn3')
        if self.attention is not None:
            y = self.attention()(y, train=train)
        return nn.relu(y + shortcut)


FORMS = {'plain': PlainTail, 'folded': FoldedTail}
