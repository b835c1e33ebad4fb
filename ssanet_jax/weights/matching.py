"""Matches the names in a state_dict with the variables of a network."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp

from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import Network
from ssanet_jax.weights.checkpoint_parts import Say, is_averaged, several_networks

Path = tuple[str, ...]

OURS = 'ssanet_jax'  # the naming of networks that no other library has

# Buffers of BatchNorm, of averaged models and of counters of operations.
COUNTERS = re.compile(r'(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params)$')


class Matched(NamedTuple):
    """Weights of a network under one naming.

    Attributes:
      naming, rules: the naming.
      arrays: by name, without prefix.
      paths: of the variables by name.
    """

    naming: str
    rules: NameMapping
    arrays: dict[str, Any]
    paths: dict[str, Path]


def namings(model: Network) -> list[str]:
    """The namings that `from_torch` and `to_torch` accept for `model`; this package's is last."""
    return [*model.state_dict_rules(), OURS]


def rules_of(model: Network, name: str | None) -> tuple[str, NameMapping]:
    """The naming called `name`, or the network's first; raises ValueError."""
    known = {**model.state_dict_rules(), OURS: NameMapping()}
    if name is None:
        name = next(iter(known))
    if name not in known:
        raise ValueError(
            f'{type(model).__name__} has no naming {name!r}; choose one of '
            f'{", ".join(map(repr, known))}.'
        )
    return name, known[name]


def variable_shapes(model: Network, image_size: int | None = None) -> Any:
    """Shapes and dtypes of the variables of `model`, without computing them."""
    size = image_size or (32 if model.stem == 'cifar' else 224)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def flatten(tree: Mapping[str, Any]) -> dict[Path, Any]:
    """The leaves of nested mappings by path."""
    return flax.traverse_util.flatten_dict({**tree})


def same_layout(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether shapes are equal up to trailing axes of length 1, or one has trailing axes flat."""
    a, b = (_strip_ones(s) for s in (shape, expected))
    flat = a[:1] == b[:1] and math.prod(a) == math.prod(b) and 2 in (len(a), len(b))
    return a == b or flat


def _strip_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape[-1:] == (1,):
        shape = shape[:-1]
    return shape


def match(
    state_dict: Mapping[str, Any],
    model: Network,
    wanted: Iterable[Path],
    *,
    naming: str | None,
    ignored: Callable[[str], bool],
    say: Say = lambda _: None,
) -> Matched:
    """Finds the naming, and the prefix of the names, that fit most variables of `model`.

    Args:
      state_dict: weights by name.
      model: the network.
      wanted: paths of its variables.
      naming: one of `namings`; None: the best.
      ignored: whether to skip a name, without its prefix.
      say: called with a sentence on a prefix, and on names without it.

    Raises:
      ValueError: several prefixes fit, or there is no such naming.
    """
    names = [name for name in state_dict if not COUNTERS.search(name)]
    found = []
    for candidate in namings(model) if naming is None else [naming]:
        _, rules = rules_of(model, candidate)
        paths = {rules.name(path[1:]): path for path in wanted}
        counts = _count_prefixes(names, paths)
        prefix = max(counts, key=lambda p: (counts[p], -len(p)), default='')
        inside = [n.removeprefix(prefix) for n in names if n.startswith(prefix)]
        found.append((len({*inside} ^ {*paths}), candidate, rules, paths, counts))
    _, best, rules, paths, counts = min(found, key=lambda f: f[0])
    prefix, averaged = _choose(counts, len(paths))
    inside = [n for n in names if n.startswith(prefix) and not n.startswith(tuple(averaged))]
    _account(prefix, averaged, [n for n in names if not n.startswith((prefix, *averaged))], say)
    arrays = {n.removeprefix(prefix): state_dict[n] for n in inside}
    arrays = {n: a for n, a in arrays.items() if not (ignored(n) or re.search(rules.unused, n))}
    return Matched(best, rules, arrays, paths)


def _count_prefixes(names: Iterable[str], expected: Collection[str]) -> Counter[str]:
    """How many names are an expected one after each prefix, which ends in a dot or is empty."""
    counts: Counter[str] = Counter()
    for name in names:
        start = 0
        while start >= 0:
            if name[start:] in expected:
                counts[name[:start]] += 1
            start = name.find('.', start) + 1 or -1
    return counts


def _choose(counts: Counter[str], num_expected: int) -> tuple[str, list[str]]:
    """The prefix under which most names are expected, and those of averaged copies beside it."""
    rivals = [prefix for prefix, count in counts.items() if 2 * count > num_expected]
    raw = [prefix for prefix in rivals if not is_averaged(prefix)] or rivals
    if len(raw) > 1:
        parts = [prefix.rstrip('.') for prefix in raw if prefix]
        raise ValueError(several_networks('The file', parts))
    return raw[0] if raw else '', [prefix for prefix in rivals if prefix not in raw]


def _account(prefix: str, averaged: Sequence[str], others: Sequence[str], say: Say) -> None:
    """Says which prefix is stripped, and which names are left out because they lack it."""
    sentences = [f'Stripped the prefix {prefix} of the weights.'] if prefix else []
    if averaged:
        part = averaged[0].rstrip('.')
        sentences.append(
            f'The file also has averaged weights, {part}: --config.init.part={part} (--part of '
            'ssanet convert_torch) takes them.'
        )
    if others:
        first = prefix.partition('.')[0]
        tops = {n if n.partition('.')[0] == first else n.partition('.')[0] for n in others}
        sentences.append(f'Ignored {shortened(sorted(tops))}.')
    if sentences:
        say(' '.join(sentences))


def shortened(names: Sequence[str]) -> str:
    """The first ten names, in which control characters are escaped."""
    shown = ', '.join(
        n if n.isprintable() else n.encode('unicode_escape').decode() for n in names[:10]
    )
    return f'{shown}, ... ({len(names)} in all)' if len(names) > 10 else shown or 'none'
