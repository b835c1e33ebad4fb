"""Conversion between the variables of a network and the state_dict of its torch counterpart."""

import fnmatch
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import Network

if TYPE_CHECKING:
    import torch

Variables = dict[str, Any]
Path = tuple[str, ...]

_OURS = 'ssanet_jax'  # the naming of networks that no other library has

StateDict = Mapping[str, 'np.ndarray | torch.Tensor']


def from_torch(
    state_dict: StateDict,
    model: Network,
    *,
    image_size: int | None = None,
    naming: str | None = None,
    ignore: Sequence[str] = (),
    head: bool = True,
) -> Variables:
    """Converts a torch state_dict to the variables of `model`.

    Every weight must have a variable and every variable a weight, apart from BatchNorm's
    `num_batches_tracked`, which has no counterpart and is ignored.

    Args:
      state_dict: tensors or NumPy arrays by name; a leading 'module.' is stripped.
      model: from `create_model`.
      image_size: height and width of the images, if parameter shapes depend on it; defaults to 32
        with the CIFAR stem, otherwise 224.
      naming: 'torchvision', 'timm', 'ssanet', 'ssanet_cifar' or 'ssanet_jax'; defaults to the best
        match among the namings of the network.
      ignore: patterns (`aux1.*`) of names to skip.
      head: False skips the classifier, `fc`, whose number of classes may differ.

    Returns:
      {'params': ..., 'batch_stats': ...} of float32 NumPy arrays, 'batch_stats' if there are any.

    Raises:
      ValueError: unexpected or missing weights, which the message lists, or mismatched shapes.

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
    arrays = {
        name: value
        for name, value in _without_prefix(state_dict).items()
        if not name.endswith('num_batches_tracked')
        and not any(fnmatch.fnmatchcase(name, pattern) for pattern in ignore)
    }
    wanted = _flatten(variable_shapes(model, image_size))
    naming, rules = _best(model, naming, wanted, arrays)
    paths = {rules.name(path[1:]): path for path in wanted}
    if not head:
        for name in [name for name, path in paths.items() if path[1] == 'fc']:
            del paths[name]
            arrays.pop(name, None)
    arrays = {name: a for name, a in arrays.items() if not re.search(rules.unused, name)}
    _require_same_names(paths, arrays, naming)
    flat = {}
    for name, path in paths.items():
        values, shape = to_numpy(arrays[name]), wanted[path].shape
        expected = rules.shape(name, shape)
        if not _same_layout(values.shape, expected):
            raise ValueError(
                f'{name} has shape {values.shape}, but {type(model).__name__} needs {expected}; '
                'expected weights of the same network with the same num_classes.'
            )
        flat[path] = _from_torch_layout(values, shape)
    return flax.traverse_util.unflatten_dict(flat)


def to_arrays(
    variables: Mapping[str, Any], model: Network, *, naming: str | None = None
) -> dict[str, np.ndarray]:
    """Converts variables of `model` to a state_dict of NumPy arrays; see `to_torch`.

    Raises:
      ValueError: the network has no such naming.
    """
    _, rules = _naming(model, naming)
    arrays = {}
    for path, values in _flatten(variables).items():
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
    """The number of classes in the weights of `model`, under any of its namings.

    Raises:
      ValueError: the bias of the classifier is missing.
    """
    names = [_naming(model, naming)[1].name(('fc', 'bias')) for naming in namings(model)]
    arrays = _without_prefix(state_dict)
    for name in names:
        if name in arrays:
            return arrays[name].shape[0]
    raise ValueError(
        f'The weights have no classifier of {type(model).__name__}: expected '
        f'{" or ".join(sorted(set(names)))}.'
    )


def namings(model: Network) -> list[str]:
    """The namings that `from_torch` and `to_torch` accept for `model`; this package's is last."""
    return [*model.state_dict_rules(), _OURS]


def variable_shapes(model: Network, image_size: int | None = None) -> Any:
    """Shapes and dtypes of the variables of `model`, without computing them."""
    size = image_size or (32 if model.stem == 'cifar' else 224)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def to_numpy(values: 'np.ndarray | torch.Tensor') -> np.ndarray:
    """Converts a tensor or array to a float32 array."""
    if hasattr(values, 'detach'):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, np.float32)


def _without_prefix(state_dict: StateDict) -> 'dict[str, np.ndarray | torch.Tensor]':
    """Strips the prefix that torch's DataParallel adds."""
    return {name.removeprefix('module.'): value for name, value in state_dict.items()}


def _flatten(tree: Mapping[str, Any]) -> dict[Path, Any]:
    return flax.traverse_util.flatten_dict({**tree})


def _naming(model: Network, name: str | None) -> tuple[str, NameMapping]:
    known = {**model.state_dict_rules(), _OURS: NameMapping()}
    if name is None:
        name = next(iter(known))
    if name not in known:
        raise ValueError(
            f'{type(model).__name__} has no naming {name!r}; choose one of '
            f'{", ".join(map(repr, known))}.'
        )
    return name, known[name]


def _best(
    model: Network, naming: str | None, wanted: Iterable[Path], arrays: Mapping[str, Any]
) -> tuple[str, NameMapping]:
    """The given naming, or the one with the fewest unmatched names."""
    if naming is not None:
        return _naming(model, naming)

    def mismatches(name: str) -> int:
        rules = _naming(model, name)[1]
        return len(set(arrays) ^ {rules.name(path[1:]) for path in wanted})

    return _naming(model, min(namings(model), key=mismatches))


def _require_same_names(expected: Iterable[str], arrays: Iterable[str], naming: str) -> None:
    missing = sorted(set(expected) - set(arrays))
    unexpected = sorted(set(arrays) - set(expected))
    if missing or unexpected:
        raise ValueError(
            f'The weights do not match this network under the naming {naming}. '
            f'Unexpected: {_list(unexpected)}. Missing: {_list(missing)}. '
            "Choose the matching model. If only SSA is missing, set init.attention='insert', or "
            '--insert of tools.convert_torch, whose --ignore skips weights.'
        )


def _list(names: Sequence[str]) -> str:
    shown = ', '.join(names[:10]) or 'none'
    return f'{shown}, ... ({len(names)} in all)' if len(names) > 10 else shown


def _same_layout(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether shapes are equal up to trailing axes of length 1, or one has trailing axes flat."""
    a, b = (_strip_ones(s) for s in (shape, expected))
    flat = a[:1] == b[:1] and math.prod(a) == math.prod(b) and 2 in (len(a), len(b))
    return a == b or flat


def _strip_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape[-1:] == (1,):
        shape = shape[:-1]
    return shape


def _from_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[out, in, *window], whose last axes may be flat or 1, to [*window, in, out]."""
    if values.ndim < 2:
        return values
    *window, inner, outer = shape
    return np.moveaxis(values.reshape(outer, inner, *window), (0, 1), (-1, -2))


def _to_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_from_torch_layout`."""
    if values.ndim < 2:
        return values
    return np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)).reshape(shape))
