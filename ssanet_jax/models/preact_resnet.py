"""Residual networks of pre-activation units (He et al. 2016, https://arxiv.org/abs/1603.05027).

Wide ResNets (Zagoruyko and Komodakis 2016, https://arxiv.org/abs/1605.07146) are the same with
more channels. Submodules have timm's names (`layer1_0` for `stages.0.blocks.0`). The attention slot
is after the last convolution, before the sum, as in the SE paper.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping, Replacement
from ssanet_jax.models.network import (
    AttentionPosition,
    ModuleFn,
    ResidualNetwork,
    apply_attention,
    by_position,
)


class PreActBlock(nn.Module):
    """x + attention(convolutions of relu(BatchNorm(x))), with BatchNorm and ReLU before each.

    A shortcut that changes shape is a 1x1 convolution of the same relu(BatchNorm(x)).

    Attributes:
      width: channels of the inner convolutions.
      bottleneck: 1x1, 3x3, 1x1 with 4 width channels at the end, instead of 3x3, 3x3.
      stride: 2 halves height and width, in the first 3x3.
      attention: makes the block of the slot, or None.
      attention_position: see `ResidualNetwork`.
      norm: makes each BatchNorm.
      drop_rate: probability to drop the branch of an example in training, see `layers.drop_path`.
    """

    width: int
    bottleneck: bool
    stride: int = 1
    attention: ModuleFn | None = None
    attention_position: AttentionPosition = 'pre_residual'
    norm: ModuleFn = layers.BatchNorm
    drop_rate: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        before, after = by_position(self.attention, self.attention_position)
        features = self.width * (4 if self.bottleneck else 1)
        convs = [(3, self.width, self.stride), (3, self.width, 1)]
        if self.bottleneck:
            convs = [(1, self.width, 1), convs[0], (1, features, 1)]
        y, shortcut = self._norm_relu(x, 1, train=train), x
        if self.stride != 1 or x.shape[-1] != features:
            shortcut = layers.conv(
                features, 1, stride=self.stride, dtype=x.dtype, name='downsample'
            )(y)
        for number, (size, width, stride) in enumerate(convs, start=1):
            y = y if number == 1 else self._norm_relu(y, number, train=train)
            y = layers.conv(width, size, stride=stride, dtype=x.dtype, name=f'conv{number}')(y)
        y = layers.drop_path(apply_attention(before, y, train=train), self.drop_rate, train=train)
        return apply_attention(after, y + shortcut, train=train)

    def _norm_relu(self, x: jax.Array, number: int, *, train: bool) -> jax.Array:
        return nn.relu(layers.batch_norm(x, train=train, name=f'norm{number}', norm=self.norm))


class PreActResNet(ResidualNetwork, kw_only=True):
    """Pre-activation ResNet, see `Network`; later stages halve the size and double the width.

    Attributes:
      stage_sizes: blocks per stage.
      bottleneck: see `PreActBlock`.
      width: inner channels of the first stage.
      stem_width: channels of the stem.
      dropout: as in `Network`; there is none inside the blocks, as Wide ResNets may have.
    """

    stage_sizes: Sequence[int]
    bottleneck: bool
    width: int = 64
    stem_width: int = 64

    def state_dict_rules(self) -> dict[str, NameMapping]:
        rules: list[tuple[str, Replacement]] = [
            ('^conv1/', 'stem/conv/'),
            (r'^layer(\d)_(\d+)/', lambda m: f'stages/{int(m[1]) - 1}/blocks/{m[2]}/'),
            ('/downsample/', '/downsample/conv/'),
            ('^fc/', 'head/fc/'),
        ]
        return {'timm': NameMapping(rules, as_conv=r'^head\.fc')}

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        size, stride = {'imagenet': (7, 2), 'cifar': (3, 1)}[self.stem]
        x = layers.conv(self.stem_width, size, stride=stride, dtype=self.dtype, name='conv1')(x)
        if self.stem == 'imagenet':
            x = layers.max_pool(x)
        for stage, size in enumerate(self.stage_sizes, start=1):
            for index in range(size):
                block = PreActBlock(
                    width=self.width * 2 ** (stage - 1),
                    bottleneck=self.bottleneck,
                    stride=2 if stage > 1 and index == 0 else 1,
                    attention=self.attention_at(stage, index),
                    attention_position=self.attention_position,
                    norm=self.norm,
                    drop_rate=self.drop_rate_at(stage, index),
                    name=f'layer{stage}_{index}',
                )
                x = self.block_at(stage, block, train=train)(x)
        return nn.relu(layers.batch_norm(x, train=train, name='norm', norm=self.norm))
