"""Conversion between the variables of a network and the state_dict of its torch counterpart."""

import fnmatch
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from ssanet_jax.models.network import Network
from ssanet_jax.weights.checkpoint_parts import Say, log
from ssanet_jax.weights.matching import (
    Matched,
    flatten,
    match,
    namings,
    rules_of,
    same_layout,
    shortened,
    variable_shapes,
)
from ssanet_jax.weights.remedies import other_head, other_network

if TYPE_CHECKING:
    import torch

Variables = dict[str, Any]

StateDict = Mapping[str, 'np.ndarray | torch.Tensor']


def from_torch(
    state_dict: StateDict,
    model: Network,
    *,
    image_size: int | None = None,
    naming: str | None = None,
    ignore: Sequence[str] = (),
    head: bool = True,
    say: Say = log,
) -> Variables:
    """Converts a torch state_dict to the variables of `model`.

    Every weight must have a variable and every variable a weight, apart from counters, such as
    BatchNorm's `num_batches_tracked`, which have no counterpart. A prefix of all names of the
    network, as `module._orig_mod.` or `backbone.`, is stripped, and names without it are ignored.

    Args:
      state_dict: tensors or NumPy arrays by name.
      model: from `create_model`.
      image_size: height and width of the images, if parameter shapes depend on it; defaults to 32
        with the CIFAR stem, otherwise 224.
      naming: 'torchvision', 'timm', 'ssanet', 'ssanet_cifar' or 'ssanet_jax'; defaults to the best
        match among the namings of the network.
      ignore: patterns (`aux1.*`) of names to skip.
      head: False skips the classifier, `fc`, whose number of classes may differ.
      say: called with a sentence on what was stripped and ignored, if anything was.

    Returns:
      {'params': ..., 'batch_stats': ...} of float32 NumPy arrays, 'batch_stats' if there are any.

    Raises:
      ValueError: unexpected or missing weights, which the message lists, mismatched shapes, or
        several networks under prefixes.

    >>> import jax
    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(1,))
    >>> init = jax.jit(model.init, static_argnames='train')
    >>> variables = init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    >>> state_dict = to_arrays(variables, model, naming='torchvision')
    >>> state_dict['layer1.0.ssa.bn.weight'], state_dict['layer1.0.conv1.weight'].shape
    (array([1.], dtype=float32), (16, 16, 3, 3))
    >>> jax.tree.all(jax.tree.map(np.array_equal, from_torch(state_dict, model), variables))
    True
    """
    wanted = flatten(variable_shapes(model, image_size))
    matched = match(
        state_dict,
        model,
        wanted,
        naming=naming,
        ignored=lambda name: any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore),
        say=say,
    )
    if not head or ('params', 'fc', 'bias') not in wanted:
        matched = _without_head(matched)
    shapes = {name: wanted[path].shape for name, path in matched.paths.items()}
    _require_same_names(matched, state_dict, model)
    _require_same_shapes(matched, shapes, state_dict, model)
    flat = {
        path: _from_torch_layout(to_numpy(matched.arrays[name], name), shapes[name])
        for name, path in matched.paths.items()
    }
    return flax.traverse_util.unflatten_dict(flat)


def to_arrays(
    variables: Mapping[str, Any], model: Network, *, naming: str | None = None
) -> dict[str, np.ndarray]:
    """Converts variables of `model` to a state_dict of NumPy arrays; see `to_torch`.

    Raises:
      ValueError: the network has no such naming.
    """
    _, rules = rules_of(model, naming)
    arrays = {}
    for path, values in flatten(variables).items():
        name = rules.name(path[1:])
        arrays[name] = _to_torch_layout(np.asarray(values), rules.shape(name, values.shape))
        if name.endswith('running_var'):
            counter = name.replace('running_var', 'num_batches_tracked')
            arrays[counter] = np.zeros((), np.int64)
    return arrays


def to_torch(
    variables: Mapping[str, Any], model: Network, *, naming: str | None = None
) -> dict[str, 'torch.Tensor']:
    """Converts variables of `model` to a state_dict for `load_state_dict(..., strict=True)`.

    With naming='ssanet', use strict=False: the authors' ungrouped SSA blocks hold an unused 1x1
    convolution that has no counterpart here.

    Args:
      variables: 'params' and 'batch_stats' of `model`.
      model: from `create_model`.
      naming: 'torchvision', 'timm', ...; defaults to the network's first.

    Raises:
      ValueError: the network has no such naming.
      ImportError: torch is not installed; `to_arrays` does not need it.
    """
    import torch

    arrays = to_arrays(variables, model, naming=naming)
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def num_classes(state_dict: StateDict, model: Network) -> int:
    """The number of classes in the weights of `model`, under any of its namings and any prefix.

    Raises:
      ValueError: the bias of the classifier is missing.
    """
    names = [rules_of(model, naming)[1].name(('fc', 'bias')) for naming in namings(model)]
    for name in names:
        if found := [n for n in state_dict if f'.{n}'.endswith(f'.{name}')]:
            return state_dict[min(found, key=len)].shape[0]
    raise ValueError(
        f'The weights have no classifier of {type(model).__name__}: expected '
        f'{" or ".join(sorted(set(names)))}. Give the number of classes: --num_classes.'
    )


def to_numpy(values: Any, name: str = 'An array') -> np.ndarray:
    """Converts a tensor or an array of floating-point numbers to float32; raises ValueError."""
    tensor = hasattr(values, 'detach')
    if not (values.is_floating_point() if tensor else jnp.issubdtype(values.dtype, jnp.floating)):
        raise ValueError(f'{name} is not floating-point; use the weights from before quantization.')
    return values.detach().cpu().float().numpy() if tensor else np.asarray(values, np.float32)


def _without_head(matched: Matched) -> Matched:
    """Leaves out the classifier, and other layers that the weights have in its place."""
    _, rules, arrays, paths = matched
    place = rules.name(('fc', 'bias')).partition('.')[0]
    kept = {name: path for name, path in paths.items() if path[1] != 'fc'}
    return matched._replace(
        arrays={n: a for n, a in arrays.items() if n in kept or n.partition('.')[0] != place},
        paths=kept,
    )


def _require_same_names(matched: Matched, state_dict: StateDict, model: Network) -> None:
    missing = sorted(matched.paths.keys() - matched.arrays.keys())
    unexpected = sorted(matched.arrays.keys() - matched.paths.keys())
    if missing or unexpected:
        raise ValueError(
            f'The weights do not match this network under the naming {matched.naming}. '
            f'Unexpected: {shortened(unexpected)}. Missing: {shortened(missing)}. '
            + other_network(state_dict, model, missing, unexpected)
        )


def _require_same_shapes(
    matched: Matched,
    shapes: Mapping[str, tuple[int, ...]],
    state_dict: StateDict,
    model: Network,
) -> None:
    for name, path in matched.paths.items():
        found = tuple(matched.arrays[name].shape)
        expected = matched.rules.shape(name, shapes[name])
        if same_layout(found, expected):
            continue
        message = f'{name} has shape {found}, but {type(model).__name__} needs {expected}'
        if path[1] == 'fc':
            raise ValueError(other_head(message, found, expected))
        raise ValueError(f'{message}. {other_network(state_dict, model)}')


def _from_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[out, in, *window], whose last axes may be flat or 1, to [*window, in, out]."""
    if len(shape) < 2:
        return values.reshape(shape)
    *window, inner, outer = shape
    return np.moveaxis(values.reshape(outer, inner, *window), (0, 1), (-1, -2))


def _to_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_from_torch_layout`."""
    if values.ndim < 2:
        return values
    return np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)).reshape(shape))
