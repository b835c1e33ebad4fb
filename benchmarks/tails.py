"""Both forms of a tail, for tail_traffic.py and tail_rounding.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax

from ssanet_jax import SEBlock, SSABlock, layers
from ssanet_jax.models.folded_tail import FoldedTail

ATTENTION = {
    'none': None,
    'ssa': partial(SSABlock, name='ssa'),
    'ssa, 2 groups': partial(SSABlock, num_groups=2, name='ssa'),
    'ssa, 4 groups': partial(SSABlock, num_groups=4, name='ssa'),
    'se': partial(SEBlock, name='se'),
}


class PlainTail(nn.Module):
    """The plain form of `FoldedTail`, with the same parameters, as in `ResidualBlock`."""

    features: int
    attention: Callable[..., nn.Module] | None = None

    @nn.compact
    def __call__(self, h: jax.Array, shortcut: jax.Array, *, train: bool) -> jax.Array:
        y: Any = layers.conv(self.features, 1, dtype=h.dtype, name='conv3')(h)
        y = layers.batch_norm(y, train=train, name='bn3')
        if self.attention is None:
            return layers.relu(y + shortcut)
        return nn.relu(self.attention()(y, train=train) + shortcut)


FORMS = {'plain': PlainTail, 'folded': FoldedTail}
