"""Run configuration: fields with defaults and checks, and the training plan they imply.

`config.fields` needs JAX and Flax only; the rest needs ml_collections, and is imported when used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssanet_jax.config.defaults import base, cifar, flatten, with_defaults
    from ssanet_jax.config.plan import TrainPlan, is_due, make_plan

_MODULES = {
    'TrainPlan': 'plan',
    'base': 'defaults',
    'cifar': 'defaults',
    'flatten': 'defaults',
    'is_due': 'plan',
    'make_plan': 'plan',
    'with_defaults': 'defaults',
}

__all__ = ['TrainPlan', 'base', 'cifar', 'flatten', 'is_due', 'make_plan', 'with_defaults']


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)
