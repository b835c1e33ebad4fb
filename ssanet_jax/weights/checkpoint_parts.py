"""Finds the weights of a network in the content of a checkpoint, among all else that is saved."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ssanet_jax.weights.torch_file import Opaque

Say = Callable[[str], object]
log: Say = logging.getLogger('ssanet_jax').info

_DEPTH = 4
# Where training scripts put the weights; '' is the file itself.
_USUAL = {
    '', 'state_dict', 'model_state_dict', 'model_state', 'model', 'network', 'net', 'params',
    'weights', 'module',
}  # fmt: skip
_NOT_WEIGHTS = re.compile(r'opt$|optim|sched|scaler|momentum|grad', re.IGNORECASE)
_AVERAGED = re.compile(r'(^|[._])(ema|swa|avg|averaged?|shadow|polyak)([._]|$)', re.IGNORECASE)


def is_averaged(part: str) -> bool:
    """Whether the name of a part says that it holds averaged weights, as model_ema."""
    return bool(_AVERAGED.search(part))


def select(content: Any, part: str | None, path: str, say: Say) -> dict[str, Any]:
    """The arrays by name of one network in `content`, the raw ones where averaged are beside them.

    Args:
      content: of a file: mappings and lists, nested, of arrays and anything else.
      part: names the network, as 'model_ema'; None: the only one, or the one that is not averaged.
      path: of the file.
      say: called with a sentence on the choice and on what is ignored, if there is anything.

    Raises:
      ValueError: there is no such part, no weights, or several networks.
    """
    groups = {'.'.join(keys): arrays for keys, arrays in _arrays(content)}
    networks = [name for name, arrays in groups.items() if any('.weight' in a for a in arrays)]
    if part is not None:
        return _named(groups, networks, part, path)
    if not networks:
        raise ValueError(_without_weights(content, path))
    chosen = _choose(networks, path)
    if sentence := _account(content, chosen, networks):
        say(f'{path}: {sentence}')
    return groups[chosen]


def _arrays(
    content: Any, keys: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """The arrays directly in each mapping or list of `content`, outermost first."""
    inner = _items(content)
    arrays = {name: value for name, value in inner.items() if hasattr(value, 'shape')}
    if arrays:
        yield keys, arrays
    for name, value in inner.items():
        if len(keys) < _DEPTH and not _NOT_WEIGHTS.search(name):
            yield from _arrays(value, (*keys, name))


def _items(content: Any) -> dict[str, Any]:
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items()}
    if isinstance(content, list | tuple):
        return {str(index): value for index, value in enumerate(content)}
    return {}


def _named(
    groups: Mapping[str, Mapping[str, Any]], networks: list[str], part: str, path: str
) -> dict[str, Any]:
    """The arrays whose names, with those of the mappings around them, contain `part`."""
    found: dict[str, Any] = {}
    for group, arrays in groups.items():
        for name, value in arrays.items():
            _, inside, rest = f'.{group}.{name}'.replace('..', '.').partition(f'.{part}.')
            if inside and rest in found:
                raise ValueError(f'{path} has several parts {part!r}; give more of the name.')
            if inside:
                found[rest] = value
    if not found:
        known = ', '.join(network or 'one, without a name' for network in networks) or 'none'
        raise ValueError(f'{path} has no part {part!r}; its networks: {known}.')
    return found


def _choose(networks: list[str], path: str) -> str:
    raw = [name for name in networks if not is_averaged(name)] or networks
    usual = [name for name in raw if name.rpartition('.')[2] in _USUAL]
    if len(raw) == 1 or len(usual) == 1:
        return (usual or raw)[0]
    raise ValueError(several_networks(path, raw))


def several_networks(where: str, parts: list[str]) -> str:
    """The message for a choice that only the user can make."""
    return (
        f'{where} holds several networks: {", ".join(parts)}. Choose one with '
        f'--config.init.part={parts[0]} (--part of ssanet convert_torch, part= in Python).'
    )


def _account(content: Any, chosen: str, networks: list[str]) -> str:
    """Says what was taken, what could be, and what was ignored; '' for weights alone."""
    others = [name for name in networks if name != chosen]
    top = chosen.partition('.')[0]
    ignored = [
        name
        for name, value in _items(content).items()
        if not (hasattr(value, 'shape') if chosen == '' else name == top)
        and not any(other.partition('.')[0] == name for other in others)
    ]
    sentences = [f'took {chosen}.'] if chosen else []
    if others:
        kind = 'averaged weights, ' if is_averaged(others[0]) else ''
        sentences.append(
            f'It also has {kind}{", ".join(others)}: --config.init.part={others[0]} (--part of '
            'ssanet convert_torch) takes them.'
        )
    if ignored:
        sentences.append(f'Ignored {", ".join(ignored)}.')
    return ' '.join(sentences)


def _without_weights(content: Any, path: str) -> str:
    values = [content, *_items(content).values()]
    if whole := next((value for value in values if isinstance(value, Opaque)), None):
        return (
            f'{path} holds an object of {type(whole).__name__} instead of weights. Where its code '
            "is, save torch.save(model.state_dict(), 'weights.pth'), and give that file."
        )
    return f'{path} holds no state_dict; expected a mapping of names to tensors.'
