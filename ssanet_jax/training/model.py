"""Builds the network of a config."""

from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.config import base
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network, create_model
from ssanet_jax.models.network import ModuleFn
from ssanet_jax.models.registry import split_name
from ssanet_jax.training import parallel
from ssanet_jax.weights.convert import variable_shapes


def build_model(
    config: ConfigDict,
    num_classes: int,
    mesh: Mesh | None = None,
    attention: ModuleFn | None = None,
) -> Network:
    """Builds the network of `config.model`.

    Args:
      config: of the run.
      num_classes: outputs of the network.
      mesh: whose devices share BatchNorm statistics; without one, statistics are local.
      attention: makes the attention blocks, for a config.model.name without an attention prefix.

    Raises:
      ConfigError: `create_model` refuses the options, or they do not fit the image size.
    """
    options = network_options(config)
    if mesh is not None:
        group_size = config.model.batch_norm_group_size
        options['norm_options'] |= parallel.batch_norm_axis(group_size, mesh.size)
    if attention is not None:
        options['attention'] = attention
    try:
        network = create_model(config.model.name, num_classes=num_classes, **options)
        _check_shapes(config, network)
    except ValueError as error:
        raise ConfigError(f'config.model: {error}') from error
    return network


def network_options(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `create_model` for `config.model`, apart from its name and `num_classes`.

    Only numbers, strings, lists of them and mappings to them. Of those that describe the network,
    only those that differ from their defaults.

    Raises:
      ConfigError: there is no such network.
    """
    model, defaults = config.model, base().model
    names = [n.removeprefix('model.') for n, field in FIELDS.items() if field.network_option]
    options = {name: model[name] for name in names if model[name] != defaults[name]}
    try:
        kind, _ = split_name(model.name)
    except ValueError as error:
        raise ConfigError(f'config.model: {error}') from error
    if kind and model[kind]:
        options['attention_options'] = model[kind].to_dict()
    options['norm_options'] = {'momentum': model.batch_norm_momentum}
    if model.batch_norm_epsilon is not None:
        options['norm_options']['epsilon'] = model.batch_norm_epsilon
    if config.dtype != 'float32':
        options['dtype'] = config.dtype
    return options


def _check_shapes(config: ConfigDict, network: Network) -> None:
    """Raises ValueError for options that do not fit, such as groups that do not divide channels."""
    dataset = config.dataset
    expected = variable_shapes(network, dataset.image_size)
    others = {'eval_size': eval_size(dataset), 'initial_size': dataset.initial_size}
    for name, size in others.items():
        if 0 < size != dataset.image_size and variable_shapes(network, size) != expected:
            raise ValueError(
                f'the parameters of {config.model.name} depend on the size of its images; leave '
                f'config.dataset.{name} at -1, or choose another network.'
            )
