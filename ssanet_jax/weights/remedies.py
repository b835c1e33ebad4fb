"""What to do about weights that do not fit: another head, stem, attention or network."""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.network import Network
from ssanet_jax.weights.matching import COUNTERS, flatten, match, same_layout, variable_shapes
from ssanet_jax.weights.sizes import SIZES

_TOLERANCE = 0.01
_NAMES_OF_STEM = 12  # that differ at most between the stems of a network
_HEADS = {'fc', 'linear', 'classifier', 'head'}
# Attention by its names in timm, in the released SSANet and here.
_ATTENTION = {
    r'\.se\.(channel|spatial)\.': 'cbam',
    r'\.se\.(gather|mlp)\.': 'ge',
    r'\.se\.conv\.': 'eca',
    r'\.se\.conv(1|_h|_w)\.': 'ca',
    r'\.Salient\.': 'ssa',
    **{rf'\.{kind}\.': kind for kind in ATTENTION},
}


def other_head(message: str, found: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """The remedy for a classifier of another shape, such as another number of classes."""
    if found[:1] != expected[:1]:
        classes = found[0] if found else 0
        message += f': the weights have {classes} classes, the network has {expected[0]}'
    return (
        f'{message}. Expected the same num_classes, or --config.init.head=new, which trains a new '
        'classifier (head=False in Python).'
    )


def other_network(
    state_dict: Mapping[str, Any],
    model: Network,
    missing: Collection[str] = (),
    unexpected: Collection[str] = (),
) -> str:
    """The remedy for weights of which names or shapes differ from those of `model`."""
    names = [*missing, *unexpected]
    if names and all(name.partition('.')[0] in _HEADS for name in names):
        return (
            'Only the classifier differs: --config.init.head=new trains a new one (head=False in '
            'Python).'
        )
    if names and not unexpected and {_attention(name) for name in names} <= {'ssa', 'gssa'}:
        return (
            "Only SSA is missing: set init.attention='insert', or --insert of ssanet convert_torch."
        )
    others = [stem for stem in model.stems if stem != model.stem]
    for stem in others if len(names) <= _NAMES_OF_STEM else []:
        if _fits(state_dict, model.clone(stem=stem)):
            return f'They fit with another stem: --config.model.stem={stem} (--stem={stem}).'
    near = networks_of_same_size(state_dict)
    size = f'have the size of {" or ".join(near)}' if near else 'have the size of no network here'
    return (
        f'Choose the matching model: these weights {size}; ssanet summary --list lists all. '
        '--ignore of ssanet convert_torch skips weights.'
    )


def _fits(state_dict: Mapping[str, Any], model: Network) -> bool:
    """Whether names and, but for the classifier's, shapes are those of `model`."""
    wanted = flatten(variable_shapes(model))
    matched = match(state_dict, model, wanted, naming=None, ignored=lambda name: False)
    return matched.paths.keys() == matched.arrays.keys() and all(
        same_layout(
            tuple(matched.arrays[name].shape), matched.rules.shape(name, wanted[path].shape)
        )
        for name, path in matched.paths.items()
        if path[1] != 'fc'
    )


def networks_of_same_size(state_dict: Mapping[str, Any]) -> list[str]:
    """Names of the networks with as many arrays and, to 1%, as many numbers, the nearest first.

    The classifier, of any number of classes, and attention are not counted.
    """
    kinds = [kind for name in state_dict if (kind := _attention(name))]
    sizes = {
        name: math.prod(array.shape)
        for name, array in state_dict.items()
        if not COUNTERS.search(name) and not _attention(name)
    }
    layers = {name.rpartition('.')[0] for name in sizes if _HEADS & {*name.split('.')}}
    errors = {}
    for head in (None, *layers):
        trunk = [size for name, size in sizes.items() if name.rpartition('.')[0] != head]
        for network, (count, total) in SIZES.items():
            if len(trunk) == count and abs(sum(trunk) / total - 1) < _TOLERANCE:
                errors[network] = abs(sum(trunk) / total - 1)
    kind = f'{Counter(kinds).most_common(1)[0][0]}_' if kinds else ''
    return [f'{kind}{network}' for network in sorted(errors, key=lambda name: errors[name])]


def _attention(name: str) -> str | None:
    """The attention block to which a weight belongs."""
    return next((kind for pattern, kind in _ATTENTION.items() if re.search(pattern, name)), None)
