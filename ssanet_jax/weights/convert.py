"""Between the variables of a network here and the state_dict of the same network in torch."""

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


def from_torch(
    state_dict: Mapping[str, Any],
    model: Network,
    *,
    image_size: int | None = None,
    naming: str | None = None,
    ignore: Sequence[str] = (),
    head: bool = True,
) -> Variables:
    """The variables of `model` from the weights of the same network in torch.

    Every weight must find its place, and every variable its weight. BatchNorm's counters
    (`num_batches_tracked`), which have no counterpart, are left out.

    Args:
      state_dict: names to tensors or NumPy arrays; a leading 'module.' is dropped.
      model: made by `create_model`.
      image_size: height and width of the images, where parameters depend on it; unset: 32 with
        CIFAR's stem, otherwise 224.
      naming: 'torchvision', 'timm', 'ssanet', 'ssanet_cifar' or 'ssanet_jax'; None: the one that
        fits best of those that the network has.
      ignore: patterns (`aux1.*`) of names to leave out.
      head: False leaves out the last layer, `fc`, whose classes may be others.

    Returns:
      {'params': ..., 'batch_stats': ...} of float32 NumPy arrays, the latter where there are any.

    Raises:
      ValueError: weights without a place, variables without a weight, or shapes that differ; the
        message lists them.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10)
    >>> variables = model.init(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
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
    places = {rules.name(path[1:]): path for path in wanted}
    if not head:
        for name in [name for name, path in places.items() if path[1] == 'fc']:
            del places[name]
            arrays.pop(name, None)
    arrays = {name: a for name, a in arrays.items() if not re.search(rules.unused, name)}
    _require_same_names(places, arrays, naming)
    flat = {}
    for name, path in places.items():
        values, shape = to_numpy(arrays[name]), wanted[path].shape
        expected = rules.shape(name, shape)
        if not _same_layout(values.shape, expected):
            raise ValueError(
                f'{name} has shape {values.shape}, but {type(model).__name__} needs {expected}; '
                'is it another network, or another num_classes?'
            )
        flat[path] = _from_torch_layout(values, shape)
    return flax.traverse_util.unflatten_dict(flat)


def to_arrays(
    variables: Mapping[str, Any], model: Network, *, naming: str | None = None
) -> dict[str, np.ndarray]:
    """The weights of `model` by their names in torch, as `to_torch`, in NumPy arrays.

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
    """A state_dict for `load_state_dict(..., strict=True)` of the same network in torch.

    By the names of 'ssanet' it lacks the 1x1 convolution that the authors' ungrouped SSA blocks
    have and never use: there, strict=False.

    Args:
      variables: 'params' and 'batch_stats' of `model`.
      model: made by `create_model`.
      naming: 'torchvision', 'timm', ...; None: the network's first.

    Raises:
      ValueError: the network has no such naming.
      ImportError: torch is not installed; `to_arrays` does without.
    """
    import torch

    arrays = to_arrays(variables, model, naming=naming)
    return {name: torch.from_numpy(np.array(values)) for name, values in arrays.items()}


def num_classes(state_dict: Mapping[str, Any], model: Network) -> int:
    """The classes of the weights of `model`, by the names of any library.

    Raises:
      ValueError: the bias of the last layer has none of the names that it might have.
    """
    names = [_naming(model, naming)[1].name(('fc', 'bias')) for naming in namings(model)]
    arrays = _without_prefix(state_dict)
    for name in names:
        if name in arrays:
            return arrays[name].shape[0]
    raise ValueError(
        f'The weights have no classifier of {type(model).__name__}, {" or ".join(set(names))}; '
        'are they of another network?'
    )


def namings(model: Network) -> list[str]:
    """The names that `from_torch` and `to_torch` know for `model`, this package's last."""
    return [*model.state_dict_rules(), _OURS]


def variable_shapes(model: Network, image_size: int | None = None) -> Any:
    """Shapes and dtypes of the variables of `model`; nothing is computed."""
    size = image_size or (32 if model.stem == 'cifar' else 224)
    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def to_numpy(values: Any) -> np.ndarray:
    """A float32 array of a tensor or array of any floating-point type."""
    if hasattr(values, 'detach'):
        values = values.detach().cpu().float().numpy()
    return np.asarray(values, np.float32)


def _without_prefix(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """As it was before torch's DataParallel."""
    return {name.removeprefix('module.'): value for name, value in state_dict.items()}


def _flatten(tree: Mapping[str, Any]) -> dict[Path, Any]:
    return flax.traverse_util.flatten_dict({**tree})


def _naming(model: Network, name: str | None) -> tuple[str, NameMapping]:
    known = {**model.state_dict_rules(), _OURS: NameMapping()}
    if name is None:
        name = next(iter(known))
    if name not in known:
        raise ValueError(
            f'{type(model).__name__} has no names of {name!r}; choose one of '
            f'{", ".join(map(repr, known))}.'
        )
    return name, known[name]


def _best(
    model: Network, naming: str | None, wanted: Iterable[Path], arrays: Mapping[str, Any]
) -> tuple[str, NameMapping]:
    """The naming that was asked for, or the one that leaves the fewest names over."""
    if naming is not None:
        return _naming(model, naming)
    names = namings(model)
    left = {name: set(arrays) ^ _names(_naming(model, name)[1], wanted) for name in names}
    return _naming(model, min(names, key=lambda name: len(left[name])))


def _names(rules: NameMapping, paths: Iterable[Path]) -> set[str]:
    return {rules.name(path[1:]) for path in paths}


def _require_same_names(places: Iterable[str], arrays: Iterable[str], naming: str) -> None:
    missing, left = sorted(set(places) - set(arrays)), sorted(set(arrays) - set(places))
    if missing or left:
        raise ValueError(
            f'These are not the weights of this network by the names of {naming}. '
            f'Without a place: {_list(left)}. Missing: {_list(missing)}. '
            'Choose the model that they belong to. If SSA is all that is missing, insert it '
            "(init.attention='insert', or --insert of tools.convert_torch, which also has --ignore "
            'for weights to leave out).'
        )


def _list(names: Sequence[str]) -> str:
    shown = ', '.join(names[:10]) or 'none'
    return f'{shown}, ... ({len(names)} in all)' if len(names) > 10 else shown


def _same_layout(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    """Whether the shapes differ in nothing but axes of 1 at the end, or axes that one has flat."""
    a, b = (_without_ones(s) for s in (shape, expected))
    flat = a[:1] == b[:1] and math.prod(a) == math.prod(b) and 2 in (len(a), len(b))
    return a == b or flat


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape[-1:] == (1,):
        shape = shape[:-1]
    return shape


def _from_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """[out, in, window...], whose last axes may be flat or 1, to [window..., in, out]."""
    if values.ndim < 2:
        return values
    *window, inner, outer = shape
    return np.moveaxis(values.reshape(outer, inner, *window), (0, 1), (-1, -2))


def _to_torch_layout(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse."""
    if values.ndim < 2:
        return values
    return np.ascontiguousarray(np.moveaxis(values, (-1, -2), (0, 1)).reshape(shape))
