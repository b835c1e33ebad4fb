"""GoogLeNet with BatchNorm (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842).

torchvision's form and names, with 3x3 convolutions instead of the paper's 5x5, and without the
auxiliary classifiers, which torchvision drops after training. The attention slot follows each
Inception module, as in the SE paper.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import ConvNorm, ModuleFn, Network, apply_attention

# Channels: 1x1; 3x3 and the 1x1 before it, twice; the 1x1 after pooling.
Widths = tuple[int, int, int, int, int, int]
STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)


class Inception(nn.Module):
    """Concatenates four branches: 1x1; 1x1, 3x3; 1x1, 3x3; 3x3 max-pool, 1x1.

    Attributes:
      widths: channels of the convolutions, in that order.
      attention: makes the block of the slot, or None.
      norm: makes each BatchNorm.
    """

    widths: Widths
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:

        def conv(x: jax.Array, features: int, size: int, name: str) -> jax.Array:
            return ConvNorm(features, size, norm=self.norm, name=name)(x, train=train)

        one, reduce3, three, reduce5, five, pool = self.widths
        branches = [
            conv(x, one, 1, 'branch1'),
            conv(conv(x, reduce3, 1, 'branch2_0'), three, 3, 'branch2_1'),
            conv(conv(x, reduce5, 1, 'branch3_0'), five, 3, 'branch3_1'),
            conv(
                nn.max_pool(x, window_shape=(3, 3), strides=(1, 1), padding=((1, 1), (1, 1))),
                pool,
                1,
                'branch4_1',
            ),
        ]
        return apply_attention(self.attention, jnp.concatenate(branches, axis=-1), train=train)


class GoogLeNet(Network, kw_only=True):
    """GoogLeNet, see `Network`; its stages are inception3, 4 and 5.

    Attributes:
      stages: for each stage, the widths of each module.
    """

    stages: Sequence[Sequence[Widths]] = STAGES
    dropout: float = 0.2

    @property
    def blocks(self) -> tuple[int, ...]:
        return tuple(len(stage) for stage in self.stages)

    def state_dict_rules(self) -> dict[str, NameMapping]:
        return {'torchvision': NameMapping([(r'(branch\d)_(\d)', r'\1/\2')])}

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self._stem(x, train=train)
        for stage, modules in enumerate(self.stages, start=1):
            if stage > 1:
                x = layers.max_pool_ceil(x, 3 if stage == 2 else 2)
            for index, widths in enumerate(modules):
                block = Inception(
                    widths,
                    attention=self.attention_at(stage, index),
                    norm=self.norm,
                    name=f'inception{stage + 2}{"abcdefgh"[index]}',
                )
                x = self.block_at(stage, block, train=train)(x)
        return x

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.stem == 'cifar':
            return ConvNorm(192, 3, norm=self.norm, name='conv3')(x, train=train)
        x = ConvNorm(64, 7, stride=2, norm=self.norm, name='conv1')(x, train=train)
        x = layers.max_pool_ceil(x, 3)
        x = ConvNorm(64, 1, norm=self.norm, name='conv2')(x, train=train)
        x = ConvNorm(192, 3, norm=self.norm, name='conv3')(x, train=train)
        return layers.max_pool_ceil(x, 3)
