"""DenseNets (Huang et al. 2017, https://arxiv.org/abs/1608.06993).

Submodules have torchvision's names. Every dense layer has an attention slot: its new features
pass through the block before they are concatenated, as a residual branch does before the sum.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import ModuleFn, Network, apply_attention


class DenseLayer(nn.Module):
    """Concatenates x and the output of BatchNorm, ReLU, 1x1, BatchNorm, ReLU, 3x3.

    Attributes:
      growth: channels added; the 1x1 convolution has four times as many.
      attention: makes the block of the slot, or None.
      norm: makes each BatchNorm.
    """

    growth: int
    attention: ModuleFn | None = None
    norm: ModuleFn = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(layers.batch_norm(x, train=train, name='norm1', norm=self.norm))
        y = layers.conv(4 * self.growth, 1, dtype=x.dtype, name='conv1')(y)
        y = nn.relu(layers.batch_norm(y, train=train, name='norm2', norm=self.norm))
        y = layers.conv(self.growth, 3, dtype=x.dtype, name='conv2')(y)
        return jnp.concatenate([x, apply_attention(self.attention, y, train=train)], axis=-1)


class Transition(nn.Module):
    """Halves the channels by a 1x1 convolution, and the size by 2x2 average pooling.

    Attributes:
      norm: makes the BatchNorm.
    """

    norm: ModuleFn = layers.BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(layers.batch_norm(x, train=train, name='norm', norm=self.norm))
        y = layers.conv(x.shape[-1] // 2, 1, dtype=x.dtype, name='conv')(y)
        return layers.mean_pool(y, 2, stride=2)


class DenseNet(Network, kw_only=True):
    """DenseNet, see `Network`; its stages are the dense blocks.

    Attributes:
      stage_sizes: dense layers per stage.
      growth: channels added by each layer.
      width: channels of the stem.
    """

    stage_sizes: Sequence[int]
    growth: int = 32
    width: int = 64

    def state_dict_rules(self) -> dict[str, NameMapping]:
        rules = [
            ('^(?!fc/)', 'features/'),
            (r'(denseblock\d)_(denselayer\d+)/', r'\1/\2/'),
            ('^fc/', 'classifier/'),
        ]
        # In the files that torchvision hosts, and renames as it loads them.
        files = [*rules, (r'(denselayer\d+/(?:norm|conv))(\d)/', r'\1/\2/')]
        return {
            'torchvision': NameMapping(rules),
            'timm': NameMapping(rules),
            'torchvision_files': NameMapping(files),
        }

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        size, stride = {'imagenet': (7, 2), 'cifar': (3, 1)}[self.stem]
        x = layers.conv(self.width, size, stride=stride, dtype=self.dtype, name='conv0')(x)
        if self.stem == 'imagenet':  # CIFAR's starts with the first layer's BatchNorm
            x = nn.relu(layers.batch_norm(x, train=train, name='norm0', norm=self.norm))
            x = layers.max_pool(x)
        for stage, size in enumerate(self.stage_sizes, start=1):
            for index in range(size):
                block = DenseLayer(
                    self.growth,
                    attention=self.attention_at(stage, index),
                    norm=self.norm,
                    name=f'denseblock{stage}_denselayer{index + 1}',
                )
                x = self.block_at(stage, block, train=train)(x)
            if stage < len(self.stage_sizes):
                x = Transition(norm=self.norm, name=f'transition{stage}')(x, train=train)
        return nn.relu(layers.batch_norm(x, train=train, name='norm5', norm=self.norm))
