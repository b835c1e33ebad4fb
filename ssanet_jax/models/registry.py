"""Models by name: `create_model('ssa_resnet50', num_classes=1000)`."""

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.attention import ATTENTION
from ssanet_jax.models import resnet

Settings = dict[str, Any]


def _imagenet(block: type[resnet.ResidualBlock], stage_sizes: tuple[int, ...]) -> Settings:
    return {'stem': 'imagenet', 'width': 64, 'block': block, 'stage_sizes': stage_sizes}


def _thin(n: int) -> Settings:
    """He et al. 2015, section 4.2: 6n + 2 layers, option A shortcuts."""
    return {
        'stem': 'cifar',
        'width': 16,
        'block': resnet.BasicBlock,
        'stage_sizes': (n, n, n),
        'projection': False,
    }


NETWORKS: dict[str, Settings] = {
    'resnet18': _imagenet(resnet.BasicBlock, (2, 2, 2, 2)),
    'resnet34': _imagenet(resnet.BasicBlock, (3, 4, 6, 3)),
    'resnet50': _imagenet(resnet.Bottleneck, (3, 4, 6, 3)),
    'resnet101': _imagenet(resnet.Bottleneck, (3, 4, 23, 3)),
    'resnet152': _imagenet(resnet.Bottleneck, (3, 8, 36, 3)),
    **{f'resnet{6 * n + 2}': _thin(n) for n in (3, 5, 7, 9, 18)},
}


def model_names() -> list[str]:
    """Every name that `create_model` knows: a network, alone or after an attention's name."""
    return [*NETWORKS, *(f'{kind}_{name}' for kind in ATTENTION for name in NETWORKS)]


def split_name(name: str) -> tuple[str | None, str]:
    """('ssa', 'resnet50') for 'ssa_resnet50', (None, 'resnet50') for 'resnet50'.

    Raises:
      ValueError: no such model; the message lists the nearest names.
    """
    if name not in model_names():
        raise ValueError(f'No model is called {name!r}. {_nearest(name, model_names())}')
    kind, _, network = name.rpartition('_')
    return kind or None, network


def create_model(
    name: str,
    *,
    num_classes: int,
    dtype: jax.typing.DTypeLike = jnp.float32,
    attention_options: Mapping[str, Any] | None = None,
    variant: resnet.Variant | None = None,
    **overrides: Any,
) -> nn.Module:
    """Makes a network by name; call it as `model.apply(variables, images, train=False)`.

    Args:
      name: one of `model_names()`: 'resnet50', 'ssa_resnet50', 'se_resnet20', ...
      num_classes: length of the logits.
      dtype: of the computation; parameters and statistics stay float32.
      attention_options: for the attention block, as {'squeeze': 'max'} for SSA.
      variant: 'v1' or 'v1.5' (when None), where a bottleneck's stride sits.
      **overrides: any other attribute of the network, as `stem='cifar'`,
        `zero_init_residual=True`, or `attention=partial(MyBlock, name='mine')`.

    Raises:
      ValueError: an unknown name, option or value, or one that would have no effect.

    >>> model = create_model('ssa_resnet20', num_classes=10)
    >>> shapes = jax.eval_shape(
    ...     lambda: model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False))
    >>> sum(p.size for p in jax.tree.leaves(shapes['params']))
    269740
    """
    kind, network = split_name(name)
    _check_options(overrides, resnet.ResNet, f'option of {name}')
    settings = {**NETWORKS[network], 'num_classes': num_classes, 'dtype': dtype, **overrides}
    if kind is not None and 'attention' not in overrides:
        options = {**attention_options} if attention_options else {}
        _check_options(options, ATTENTION[kind], f'attention option of {name}')
        if 'norm' in overrides and 'norm' in _fields(ATTENTION[kind]):
            options.setdefault('norm', overrides['norm'])  # statistics shared alike everywhere
        settings['attention'] = partial(ATTENTION[kind], **options, name=kind)
    elif attention_options:
        raise ValueError(f'attention_options={attention_options} has no effect on {name}.')
    if variant is not None:
        settings['block'] = _with_variant(name, settings['block'], variant)
    return resnet.ResNet(**settings)


def _with_variant(
    name: str, block: Callable[..., nn.Module], variant: resnet.Variant
) -> Callable[..., nn.Module]:
    if variant not in get_args(resnet.Variant):
        raise ValueError(f"variant={variant!r} is not known; choose 'v1' or 'v1.5'.")
    if block is not resnet.Bottleneck:
        raise ValueError(
            f'variant={variant!r} has no effect: {name} has no bottlenecks; leave it unset.'
        )
    return partial(block, variant=variant)


def _check_options(options: Iterable[str], module: Any, what: str) -> None:
    known = _fields(module)
    for option in options:
        if option not in known:
            raise ValueError(f'No {what} is called {option!r}. {_nearest(option, known)}')


def _fields(module: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(module) if f.name not in ('parent', 'name')]


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=5)
    return f'Nearest: {", ".join(close)}.' if close else f'Known: {", ".join(known)}.'
