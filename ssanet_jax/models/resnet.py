"""ResNets (He et al. 2015, https://arxiv.org/abs/1512.03385) with attention slots, and ResNet-D.

Submodules have torchvision's names (`layer1_0` for `layer1.0`).
"""

from collections.abc import Sequence
from typing import ClassVar

import flax.linen as nn
import jax

from ssanet_jax import layers
from ssanet_jax.models.folded_tail import Tail
from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import ModuleFn, ResidualNetwork, Stem

# timm's names
_DEEP_STEM = [
    ('^conv1_1/', 'conv1/0/'),
    ('^bn1_1/', 'conv1/1/'),
    ('^conv1_2/', 'conv1/3/'),
    ('^bn1_2/', 'conv1/4/'),
    ('^conv1_3/', 'conv1/6/'),
    ('^bn1_3/', 'bn1/'),
]


class ResNet(ResidualNetwork, kw_only=True):
    """ResNet, see `Network`; later stages halve the size and double the width.

    Attributes:
      stage_sizes: blocks per stage.
      block: makes a residual block, as `BasicBlock` and `Bottleneck`, called as block(x, train).
      width: channels of the first stage.
      zero_init_residual, projection, avg_down: see `ResidualBlock`.
      tail: 'folded', 'plain', or 'auto', the one expected to be faster for the shape.
    """

    stems: ClassVar[tuple[Stem, ...]] = ('imagenet', 'cifar', 'deep')

    stage_sizes: Sequence[int]
    block: ModuleFn
    width: int = 64
    zero_init_residual: bool = False
    projection: bool = True
    avg_down: bool = False
    tail: Tail = 'auto'

    def state_dict_rules(self) -> dict[str, NameMapping]:
        layer = (r'^layer(\d)_(\d+)/', r'layer\1.\2/')
        downsample = [('downsample/conv', 'downsample/0'), ('downsample/bn', 'downsample/1')]
        attention = [
            (r'/ge/(conv\d|norm\d)/', r'/se/gather/\1/'),
            ('/ge/fc', '/se/mlp/fc'),
            ('/(ca|cbam|eca|se)/', '/se/'),
            ('/spatial/(conv|bn)', r'/spatial/conv/\1'),
        ]
        if self.stem == 'deep' or self.avg_down:  # which only timm has
            pooled = [('downsample/conv', 'downsample/1'), ('downsample/bn', 'downsample/2')]
            rules = [layer, *_DEEP_STEM, *(pooled if self.avg_down else downsample), *attention]
            return {'timm': NameMapping(rules, as_conv=r'\.se\.')}
        released = [layer, ('/g?ssa/', '/Salient/')]  # models/official_SSANet.py
        cifar = [(pattern, name.replace('downsample', 'shortcut')) for pattern, name in downsample]
        return {
            'torchvision': NameMapping([layer, *downsample]),
            'timm': NameMapping([layer, *downsample, *attention], as_conv=r'\.se\.'),
            'ssanet': NameMapping([*released, *downsample], unused=r'Salient\.conv\.weight'),
            # models/resnet.py
            'ssanet_cifar': NameMapping([*released, *cifar, ('^fc/', 'linear/')]),
        }

    def features(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = self._stem(x, train=train)
        if self.stem != 'cifar':
            x = layers.max_pool(x)
        for stage, size in enumerate(self.stage_sizes, start=1):
            for index in range(size):
                block = self.block(
                    width=self.width * 2 ** (stage - 1),
                    stride=2 if stage > 1 and index == 0 else 1,
                    attention=self.attention_at(stage, index),
                    attention_position=self.attention_position,
                    norm=self.norm,
                    zero_init_residual=self.zero_init_residual,
                    projection=self.projection,
                    avg_down=self.avg_down,
                    drop_rate=self.drop_rate_at(stage, index),
                    tail=self.tail,
                    name=f'layer{stage}_{index}',
                )
                x = self.block_at(stage, block, train=train)(x)
        return x

    def _stem(self, x: jax.Array, *, train: bool) -> jax.Array:
        half = self.width // 2
        convs = {
            'imagenet': [('1', self.width, 7, 2)],
            'cifar': [('1', self.width, 3, 1)],
            'deep': [('1_1', half, 3, 2), ('1_2', half, 3, 1), ('1_3', self.width, 3, 1)],
        }
        for number, features, size, stride in convs[self.stem]:
            conv = layers.conv(
                features, size, stride=stride, dtype=self.dtype, name=f'conv{number}'
            )
            x = layers.batch_norm(conv(x), train=train, name=f'bn{number}', norm=self.norm)
            x = nn.relu(x)
        return x
