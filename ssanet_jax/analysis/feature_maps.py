"""Outputs of any layer of a network, by name."""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp

from ssanet_jax.errors import nearest
from ssanet_jax.models.folded_tail import plain_form
from ssanet_jax.models.network import Network


def feature_maps(
    model: Network,
    variables: Mapping[str, Any],
    images: jax.Array,
    names: Sequence[str] = ('*',),
) -> dict[str, jax.Array]:
    """Outputs of modules, and gates of attention blocks, in inference.

    Residual tails are computed in their plain form, in which every convolution has an output.

    Args:
      model: made by `create_model`.
      variables: its 'params' and 'batch_stats'.
      images: [N, H, W, 3], normalized.
      names: of modules ('layer4_2', 'layer1_0/conv1') or of values that attention blocks sow
        ('layer1_0/ssa/gate', 'layer1_0/ssa/saliency'). Each part may be a pattern:
        `layer1_*`, `*/ssa/gate`. Default: all top-level modules.

    Returns:
      {'layer1_0': [N, h, w, C], ...}, sorted by name, numbers by value.

    Raises:
      ValueError: a name or pattern matches nothing; the message lists the nearest names.

    >>> from ssanet_jax import create_model
    >>> model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(1,))
    >>> images = jnp.ones((1, 8, 8, 3))
    >>> variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), images)
    >>> maps = feature_maps(model, variables, images, ['layer1_0', 'layer1_0/ssa/gate'])
    >>> {name: value.shape for name, value in maps.items()}
    {'layer1_0': (1, 8, 8, 16), 'layer1_0/ssa/gate': (1, 8, 8, 1)}
    """
    known = feature_shapes(model, images.shape[1])
    chosen = _choose(names, list(known))
    outputs = _compiled(plain_form(model), tuple(chosen), variables, images)
    return {name: outputs[name] for name in chosen}


def feature_shapes(model: Network, image_size: int) -> dict[str, tuple[int, ...]]:
    """{'layer1_0': (1, 56, 56, 256), ...}: all names of `feature_maps`, for one image."""
    image = jnp.zeros((1, image_size, image_size, 3))
    plain = plain_form(model)
    variables = jax.eval_shape(lambda x: plain.init(jax.random.key(0), x, train=False), image)
    outputs = jax.eval_shape(partial(_outputs, plain, None), variables, image)
    return {name: outputs[name].shape for name in sorted(outputs, key=_by_number)}


def _outputs(
    model: Network, names: Sequence[str] | None, variables: Mapping[str, Any], images: jax.Array
) -> dict[str, jax.Array]:
    _, state = model.apply(
        variables, images, train=False, capture_intermediates=True, mutable=['intermediates']
    )
    outputs = {
        '/'.join(part for part in path if part != '__call__'): values[-1]
        for path, values in flax.traverse_util.flatten_dict(state['intermediates']).items()
    }
    outputs = {name: value for name, value in outputs.items() if getattr(value, 'ndim', 0) == 4}
    return outputs if names is None else {name: outputs[name] for name in names}


_compiled = jax.jit(_outputs, static_argnums=(0, 1))  # compiled once per model and names


def _by_number(name: str) -> list[Any]:
    return [int(part) if part.isdigit() else part for part in re.split(r'(\d+)', name)]


def _choose(names: Sequence[str], known: Sequence[str]) -> list[str]:
    for pattern in names:
        if not any(_matches(name, pattern) for name in known):
            raise ValueError(
                f'No feature map is called {pattern!r}. Nearest: {nearest(pattern, known)}.'
            )
    return [name for name in known if any(_matches(name, pattern) for pattern in names)]


def _matches(name: str, pattern: str) -> bool:
    """Matches part by part: 'layer*' does not match 'layer1_0/conv1'."""
    parts, patterns = name.split('/'), pattern.split('/')
    return len(parts) == len(patterns) and all(map(fnmatch.fnmatchcase, parts, patterns))
