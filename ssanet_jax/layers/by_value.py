"""Modules and factories that compare and hash by value, so that equal ones compile once."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeVar

import flax.linen as nn

T = TypeVar('T')


class ValuePartial(partial[T]):
    """`functools.partial` that compares and hashes by its function and arguments.

    >>> ValuePartial(dict, a=1) == ValuePartial(dict, a=1)
    True
    """

    def _value(self) -> tuple[Any, ...]:
        return self.func, self.args, frozenset(self.keywords.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ValuePartial) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash(self._value())


class ValueModule(nn.Module):
    """`nn.Module` with partials and lists among its attributes made comparable and hashable.

    Modules made twice from the same options are then equal, and `jax.jit` with a module as a static
    argument does not compile again.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name not in ('parent', 'name'):
                object.__setattr__(self, field.name, by_value(getattr(self, field.name)))
        super().__post_init__()


def by_value(value: Any) -> Any:
    """`value` with its partials as `ValuePartial` and its lists as tuples, also in mappings."""
    if isinstance(value, Mapping):
        return {key: by_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not hasattr(value, '_fields'):
        return tuple(map(by_value, value))
    if isinstance(value, partial):
        return ValuePartial(by_value(value.func), *by_value(value.args), **by_value(value.keywords))
    return value


def unwrap_partial(factory: Any) -> Any:
    """The function or class inside nested partials."""
    while isinstance(factory, partial):
        factory = factory.func
    return factory
