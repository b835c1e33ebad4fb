"""Attention blocks: modules called as `block(x, train=...)`, x and the result [N, H, W, C]."""

from collections.abc import Callable

import flax.linen as nn

from ssanet_jax.attention.squeeze_excite import SEBlock
from ssanet_jax.attention.ssa import SSABlock

ATTENTION: dict[str, Callable[..., nn.Module]] = {'se': SEBlock, 'ssa': SSABlock}

__all__ = ['ATTENTION', 'SEBlock', 'SSABlock']
