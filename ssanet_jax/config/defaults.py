"""The default config, and the recipe that the CIFAR configs share.

A recipe in configs/ starts from `base()` and changes what differs. Any field can be
overridden on the command line: `--config.optimizer.learning_rate=0.05`.
"""

from collections.abc import Mapping
from typing import Any

import flax
from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from ssanet_jax.attention import ATTENTION
from ssanet_jax.config.fields import FIELDS


def base() -> ConfigDict:
    """The defaults of `FIELDS`: the SSANet authors' ImageNet recipe."""
    tree: dict[str, Any] = {'model': {kind: {} for kind in ATTENTION}}
    for field in FIELDS.values():
        *groups, leaf = field.name.split('.')
        group = tree
        for name in groups:
            group = group.setdefault(name, {})
        unset = placeholder(tuple if field.is_tuple else field.value_type)
        group[leaf] = unset if field.default is None else field.default
    return ConfigDict(tree)


def cifar(name: str) -> ConfigDict:
    """The SSANet authors' recipe for 'cifar10' and 'cifar100'."""
    config = base()
    config.batch_size = 100
    config.num_epochs = 250.0
    config.dataset.name = name
    config.dataset.eval_split = 'test'
    config.dataset.in_memory = True
    config.dataset.image_size = 32
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.2023, 0.1994, 0.2010)
    config.dataset.train_crop = 'padded'
    config.dataset.eval_crop = 'whole'
    config.model.stem = 'cifar'
    config.optimizer.reference_batch_size = 100
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_epochs = (50.0, 100.0, 150.0, 200.0)
    return config


def flatten(config: ConfigDict) -> dict[str, Any]:
    """The leaves of a config by dotted name: {'optimizer.momentum': 0.9, ...}."""
    return flax.traverse_util.flatten_dict(config.to_dict(), sep='.')


def with_defaults(saved: Mapping[str, Any]) -> ConfigDict:
    """The config of config.json; fields added since then get their defaults."""
    config = base()
    known = flatten(config)
    for field, value in flatten(ConfigDict(saved)).items():
        if field in known:  # `data_order` is not a field
            value = tuple(value) if isinstance(value, list | tuple) else value
            config.update_from_flattened_dict({field: value})
    return config
