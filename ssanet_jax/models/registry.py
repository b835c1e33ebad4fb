"""Models by name: `create_model('ssa_resnet50', num_classes=1000)`."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax import layers
from ssanet_jax.attention import ATTENTION
from ssanet_jax.errors import nearest
from ssanet_jax.layers import ValuePartial
from ssanet_jax.models.densenet import DenseNet
from ssanet_jax.models.googlenet import GoogLeNet
from ssanet_jax.models.mobilenet import MobileNet, MobileNetV2
from ssanet_jax.models.network import ModuleFn, Network
from ssanet_jax.models.preact_resnet import PreActResNet
from ssanet_jax.models.residual_attention import ResidualAttentionNetwork
from ssanet_jax.models.residual_block import BasicBlock, Bottleneck, Variant
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.models.vgg import VGG

_SIZES = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_SIZES[152] = (3, 8, 36, 3)


def _resnet(depth: int, **block: Any) -> Callable[..., Network]:
    if depth < 50:
        return partial(ResNet, block=BasicBlock, stage_sizes=_SIZES[depth])
    return partial(ResNet, block=partial(Bottleneck, **block), stage_sizes=_SIZES[depth])


def _thin_resnet(depth: int) -> Callable[..., Network]:
    """He et al. 2015, section 4.2: option A shortcuts."""
    return partial(
        ResNet,
        block=BasicBlock,
        stage_sizes=((depth - 2) // 6,) * 3,
        stem='cifar',
        width=16,
        projection=False,
    )


def _preact(depth: int) -> Callable[..., Network]:
    return partial(PreActResNet, bottleneck=depth >= 50, stage_sizes=_SIZES[depth])


def _thin_preact(
    blocks: int, *, widen: int = 1, bottleneck: bool = False
) -> Callable[..., Network]:
    """He et al. 2016, section 4, and Zagoruyko and Komodakis 2016, table 1: blocks per stage."""
    return partial(
        PreActResNet,
        bottleneck=bottleneck,
        stage_sizes=(blocks,) * 3,
        stem='cifar',
        width=16 * widen,
        stem_width=16,
    )


#: The networks by their names without attention.
NETWORKS: dict[str, Callable[..., Network]] = {
    **{f'resnet{depth}': _resnet(depth) for depth in _SIZES},
    'resnet50d': partial(_resnet(50), stem='deep', avg_down=True),
    **{f'resnet{depth}': _thin_resnet(depth) for depth in (8, 14, 20, 32, 44, 56, 110)},
    'resnext50_32x4d': _resnet(50, groups=32, base_width=4),
    'resnext101_32x8d': _resnet(101, groups=32, base_width=8),
    'resnext101_64x4d': _resnet(101, groups=64, base_width=4),
    'wide_resnet50_2': _resnet(50, base_width=128),
    'wide_resnet101_2': _resnet(101, base_width=128),
    **{f'preact_resnet{depth}': _preact(depth) for depth in _SIZES},
    'preact_resnet110': _thin_preact(18),
    'preact_resnet164': _thin_preact(18, bottleneck=True),
    'wide_resnet16_8': _thin_preact(2, widen=8),
    'wide_resnet28_10': _thin_preact(4, widen=10),
    'wide_resnet40_4': _thin_preact(6, widen=4),
    'vgg11_bn': partial(VGG, stage_sizes=(1, 1, 2, 2, 2)),
    'vgg13_bn': partial(VGG, stage_sizes=(2, 2, 2, 2, 2)),
    'vgg16_bn': partial(VGG, stage_sizes=(2, 2, 3, 3, 3)),
    'vgg19_bn': partial(VGG, stage_sizes=(2, 2, 4, 4, 4)),
    'densenet121': partial(DenseNet, stage_sizes=(6, 12, 24, 16)),
    'densenet161': partial(DenseNet, stage_sizes=(6, 12, 36, 24), growth=48, width=96),
    'densenet169': partial(DenseNet, stage_sizes=(6, 12, 32, 32)),
    'densenet201': partial(DenseNet, stage_sizes=(6, 12, 48, 32)),
    'googlenet': partial(GoogLeNet, norm=partial(layers.BatchNorm, epsilon=1e-3)),
    'mobilenet_v1': MobileNet,
    'mobilenet_v2': MobileNetV2,
    'residual_attention56': partial(ResidualAttentionNetwork, modules=(1, 1, 1)),
    'residual_attention92': partial(ResidualAttentionNetwork, modules=(1, 2, 3)),
}

# Every VGG here has BatchNorm.
_SHORT = {f'vgg{depth}': f'vgg{depth}_bn' for depth in (11, 13, 16, 19)}


def model_names() -> list[str]:
    """All names that `create_model` accepts: networks, alone or prefixed with an attention."""
    return [*NETWORKS, *(f'{kind}_{name}' for kind in ATTENTION for name in NETWORKS)]


def split_name(name: str) -> tuple[str | None, str]:
    """('ssa', 'resnet50') for 'ssa_resnet50', (None, 'resnet50') for 'resnet50'.

    'vgg16' is short for 'vgg16_bn'.

    Raises:
      ValueError: no such model; the message has the nearest names.
    """
    kind = next((kind for kind in ATTENTION if name.startswith(f'{kind}_')), None)
    network = name.removeprefix(f'{kind}_') if kind else name
    network = _SHORT.get(network, network)
    if network not in NETWORKS:
        raise ValueError(f'No model is called {name!r}. Nearest: {nearest(name, model_names())}.')
    return kind, network


def create_model(
    name: str,
    *,
    num_classes: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
    attention_options: Mapping[str, Any] | None = None,
    norm_options: Mapping[str, Any] | None = None,
    variant: Variant | None = None,
    **overrides: Any,
) -> Network:
    """Makes a network by name; call it as `model.apply(variables, images, train=False)`.

    Args:
      name: one of `model_names()`: 'resnet50', 'ssa_resnet50', 'cbam_vgg16_bn', ...
      num_classes: length of the logits; 0: features in place of logits.
      dtype: of the computation; parameters and statistics are float32.
      attention_options: of the attention block, e.g. {'squeeze': 'max'} for SSA.
      norm_options: of every BatchNorm, the attention's included, e.g. {'axis_name': 'data'}.
      variant: 'v1' or 'v1.5' (the default), see `Bottleneck`.
      **overrides: other attributes of the network, as `stem='cifar'`,
        `attention_stages=(3, 4)`, or `attention=partial(MyBlock, name='mine')`.

    Raises:
      ValueError: an unknown name, option or value, or one that would have no effect.

    >>> model = create_model('ssa_resnet20', num_classes=10)
    >>> shapes = jax.eval_shape(
    ...     lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False))
    >>> sum(p.size for p in jax.tree.leaves(shapes['params']))
    269740
    """
    kind, network = split_name(name)
    make = NETWORKS[network]
    _check_options(overrides, make, f'option of {name}')
    if kind is not None and 'attention' in overrides:
        raise ValueError(
            f'attention={overrides["attention"]} contradicts the name {name}; use {network!r}.'
        )
    if kind is not None:
        overrides['attention'] = _attention(name, kind, attention_options, overrides)
    elif attention_options:
        raise ValueError(f'attention_options={attention_options} has no effect on {name}.')
    if overrides.get('attention') is None:
        for option in ('attention_stages', 'attention_blocks', 'attention_position'):
            if overrides.get(option) is not None:
                raise ValueError(
                    f'{option}={overrides[option]!r} has no effect on {name}, which has no '
                    f'attention; choose another model, as ssa_{network}.'
                )
    if variant is not None:
        if 'block' in overrides:
            raise ValueError(f'variant={variant!r} has no effect with block=; omit it.')
        overrides['block'] = _with_variant(name, make, variant)
    model = make(num_classes=num_classes, dtype=dtype, **overrides)
    return _with_norm_options(model, norm_options) if norm_options else model


def _attention(
    name: str, kind: str, options: Mapping[str, Any] | None, overrides: Mapping[str, Any]
) -> ModuleFn:
    options = dict(options or {})
    _check_options(options, ATTENTION[kind], f'attention option of {name}')
    if 'norm' in overrides and 'norm' in option_names(ATTENTION[kind]):
        options.setdefault('norm', overrides['norm'])
    return ValuePartial(ATTENTION[kind], **options, name=kind)


def _with_norm_options(model: Network, norm_options: Mapping[str, Any]) -> Network:
    """Copy of the network with `norm_options` in its BatchNorms and those of its attention."""
    attention = model.attention
    if attention is not None and 'norm' in option_names(attention):
        norm = attention(parent=None).norm
        attention = ValuePartial(attention, norm=ValuePartial(norm, **norm_options))
    return model.clone(norm=ValuePartial(model.norm, **norm_options), attention=attention)


def _with_variant(name: str, make: Callable[..., Network], variant: Variant) -> ModuleFn:
    if variant not in get_args(Variant):
        raise ValueError(f"variant={variant!r} is not known; choose 'v1' or 'v1.5'.")
    block: Any = getattr(make, 'keywords', {}).get('block')
    if layers.unwrap_partial(block) is not Bottleneck:
        raise ValueError(
            f'variant={variant!r} has no effect: {name} has no bottlenecks of that kind; leave it '
            'unset.'
        )
    return ValuePartial(block, variant=variant)


def _check_options(options: Iterable[str], make: Callable[..., nn.Module], what: str) -> None:
    known = option_names(make)
    for option in options:
        if option not in known:
            raise ValueError(f'No {what} is called {option!r}. Nearest: {nearest(option, known)}.')


def option_names(make: Callable[..., nn.Module]) -> list[str]:
    """Attributes of a module class, or of a partial of one."""
    made: Any = layers.unwrap_partial(make)
    fields = dataclasses.fields(made) if dataclasses.is_dataclass(made) else ()
    return [field.name for field in fields if field.name not in ('parent', 'name')]
