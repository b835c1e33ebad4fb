"""Trees of arrays, shapes or Orbax's metadata, compared and filled by the names of leaves."""

from collections.abc import Mapping
from typing import Any

import jax


def named_leaves(tree: Any) -> dict[str, Any]:
    """{'0/params/conv1/kernel': leaf, ...} of a tree, in its order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_array)
    return {_name(path): leaf for path, leaf in leaves}


def fill(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """`tree` with each leaf replaced by the one of its name in `leaves`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: leaves[_name(path)], tree, is_leaf=_is_array
    )


def abstract(tree: Any, sharding: jax.sharding.Sharding) -> Any:
    """`tree` with a ShapeDtypeStruct in place of each leaf."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        is_leaf=_is_array,
    )


def difference(saved: Any, expected: Any) -> str:
    """Describes the first leaf whose name, dtype or shape differs; '' if there is none."""
    before, now = shapes(saved), shapes(expected)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            return f'{name} was {before.get(name, "absent")} and is {now.get(name, "absent")}'
    return ''


def shapes(tree: Any) -> dict[str, str]:
    """{'0/params/conv1/kernel': 'float32[3, 3, 3, 16]', ...}."""
    return {name: f'{leaf.dtype}{list(leaf.shape)}' for name, leaf in named_leaves(tree).items()}


def _is_array(leaf: Any) -> bool:
    return hasattr(leaf, 'dtype')


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='/')
