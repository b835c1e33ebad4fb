"""A config field: its type, its checks, and what else depends on it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from ssanet_jax.errors import ConfigError


class Check(NamedTuple):
    """A condition on a value; `meaning` completes the sentence 'it must be ...'."""

    meaning: str
    holds: Callable[[Any], bool]


def between(low: float, high: float) -> Check:
    return Check(f'from {low} to {high}', lambda v: low <= v <= high)


def at_least(low: float) -> Check:
    return Check(f'at least {low}', lambda v: v >= low)


def above(low: float, high: float = float('inf')) -> Check:
    text = f'above {low}' if high == float('inf') else f'above {low}, at most {high}'
    return Check(text, lambda v: low < v <= high)


def or_auto(check: Check) -> Check:
    """Allows -1, which stands for a value that follows from other fields."""
    return Check(f'{check.meaning}, or -1', lambda v: v == -1 or check.holds(v))


def one_of(*values: str) -> Check:
    return Check(f'of {", ".join(values[:-1])} or {values[-1]}', lambda v: v in values)


FRACTION = Check('at least 0 and below 1', lambda v: 0 <= v < 1)
IS_SET = Check('other than None', lambda v: v is not None)

_TYPES: dict[type, Check] = {
    bool: Check('True or False', lambda v: isinstance(v, bool)),
    int: Check('an integer below 2**31', lambda v: type(v) is int and abs(v) < 2**31),
    float: Check(
        'a finite number',
        lambda v: isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 2**127,
    ),
    str: Check(
        'a non-empty string of printable characters',
        lambda v: isinstance(v, str) and v != '' and v.isprintable(),
    ),
}


@dataclasses.dataclass(frozen=True)
class Field:
    """One field of a config.

    Attributes:
      name: dotted, as 'optimizer.momentum'.
      default: None for a field that may be left unset; it then needs `kind`.
      doc: a sentence for --help and docs/config.md.
      check: of the value; for a tuple, of the whole tuple.
      choices: the values allowed.
      kind: bool, int, float, str or tuple[T, ...]; by default, that of `default`.
      only_with: values of other fields with which this one is read; one of them suffices. A
        value may be a Check.
      resumable: whether it may change when a run is resumed.
      network_option: whether `create_model` takes it.
      per_host: whether the hosts of a run may have different values.
    """

    name: str
    default: Any
    doc: str
    check: Check | None = None
    _: dataclasses.KW_ONLY
    choices: tuple[str, ...] = ()
    kind: Any = None
    only_with: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    resumable: bool = False
    network_option: bool = False
    per_host: bool = False

    @property
    def is_tuple(self) -> bool:
        return isinstance(self.default, tuple) or get_origin(self.kind) is tuple

    @property
    def value_type(self) -> type:
        """The type of a value, or of each element of a tuple."""
        if self.is_tuple:
            return get_args(self.kind)[0] if self.kind else type(self.default[0])
        return self.kind or type(self.default)

    @property
    def expected(self) -> str:
        """Describes the values allowed."""
        if self.choices:
            return f'one of {", ".join(self.choices)}'
        kind = _TYPES[self.value_type].meaning
        return self.check.meaning if self.check else f'a tuple of {kind}' if self.is_tuple else kind

    def verify(self, value: Any) -> None:
        """Raises ConfigError unless `value` has the type, is a choice and passes the check."""
        if value is None and self.default is None:
            return
        meaning, holds = _TYPES[self.value_type]
        listed = isinstance(value, tuple | list)
        if listed != self.is_tuple or not all(map(holds, value if listed else [value])):
            expected = f'a tuple, each element {meaning}' if self.is_tuple else meaning
            raise ConfigError(f'{self._shown(value)} has the wrong type; give {expected}.')
        if self.choices and value not in self.choices:
            raise ConfigError(f'{self._shown(value)} is unknown; choose {self.expected}.')
        if self.check and not self.check.holds(value):
            raise ConfigError(f'{self._shown(value)} is out of range; it must be {self.expected}.')

    def verify_read(self, values: Mapping[str, Any]) -> None:
        """Raises ConfigError if the other fields leave this one without effect."""
        if not self.only_with or any(_fits(values[n], v) for n, v in self.only_with.items()):
            return
        conditions = ' and '.join(f'config.{name}={values[name]!r}' for name in self.only_with)
        name, wanted = next(iter(self.only_with.items()))
        remedy = f'a value {wanted.meaning}' if isinstance(wanted, Check) else repr(wanted)
        raise ConfigError(
            f'{self._shown(values[self.name])} has no effect with {conditions}; remove it, or set '
            f'config.{name} to {remedy}.'
        )

    def _shown(self, value: Any) -> str:
        text = repr(value)
        return f'config.{self.name}={text if len(text) <= 80 else f"{text[:80]}..."}'


def _fits(value: Any, wanted: Any) -> bool:
    return wanted.holds(value) if isinstance(wanted, Check) else value == wanted
