"""The fields model.PREFIX.OPTION, made from the attributes of attention blocks."""

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin

from ssanet_jax import layers
from ssanet_jax.attention import ATTENTION
from ssanet_jax.config.field import Check, Field, above, between

_OPTION_CHECKS = {
    'model.cbam.kernel_size': between(1, 1023),
    'model.eca.kernel_size': between(0, 1023),
    'model.eca.gamma': between(0.1, 100),
    'model.eca.beta': between(-100, 100),
    'model.simam.regularizer': above(0),
}
# Attributes of attention blocks that other fields decide.
_NO_OPTIONS = {
    'axis_name', 'dtype', 'epsilon', 'momentum', 'name', 'norm', 'param_dtype', 'parent', 'train',
    'use_running_average',
}  # fmt: skip


def _attention_options(prefix: str, block: Callable[..., Any]) -> Iterator[Field]:
    """The fields model.PREFIX.OPTION: attributes of an attention block, with their defaults."""
    cls, preset = layers.unwrap_partial(block), getattr(block, 'keywords', {})
    docs = _attribute_docs(cls)
    used = Check(f'starting with {prefix}_', lambda v: v.startswith(f'{prefix}_'))
    for option in dataclasses.fields(cls):
        name, default = f'model.{prefix}.{option.name}', preset.get(option.name, option.default)
        arguments = get_args(option.type)
        kinds = [t for t in (type(default), *arguments) if t in (bool, int, float, str)]
        if option.name not in _NO_OPTIONS and kinds:
            yield Field(
                name,
                default,
                docs.get(option.name, f'See {cls.__name__}.'),
                _OPTION_CHECKS.get(name),
                choices=arguments if get_origin(option.type) is Literal else (),
                kind=kinds[0],
                only_with={'model.name': used},
            )


def _attribute_docs(cls: type) -> dict[str, str]:
    """The section 'Attributes:' of a docstring, by name."""
    entries = re.findall(
        r'^  ([\w, ]+): (.+?)(?=\n  \w|\n\n|\Z)',
        inspect.getdoc(cls) or '',
        re.MULTILINE | re.DOTALL,
    )
    return {name: ' '.join(text.split()) for names, text in entries for name in names.split(', ')}


ATTENTION_FIELDS = tuple(
    field for kind, block in ATTENTION.items() for field in _attention_options(kind, block)
)
