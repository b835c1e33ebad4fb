"""Insertion of SSA into a network trained without it, as an identity."""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from ssanet_jax.models.network import Network
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.weights.matching import variable_shapes

_SSA = ('ssa', 'gssa')


def insert_attention(
    variables: Mapping[str, Any], model: Network, *, image_size: int | None = None
) -> dict[str, Any]:
    """Variables of an SSA network that computes what the same network without SSA does.

    Every new BatchNorm starts with scale and bias 0, so that every gate is gate_scale / 2:

    * 1 with gate_scale=2: values are unchanged, bit for bit as long as tails are plain and the
      operations are not compiled together: fusion rounds the two networks differently.
    * 1/2 with the paper's gate_scale=1. In a ResNet with the block before the sum, the scale and
      bias of the preceding BatchNorm are multiplied by 2 / gate_scale, which compensates exactly.

    Args:
      variables: 'params' and 'batch_stats' of the plain network.
      model: made by `create_model('ssa_...')` or `create_model('gssa_...')`.
      image_size: see `from_torch`.

    Returns:
      'params' and 'batch_stats' of `model`, in NumPy arrays.

    Raises:
      ValueError: the attention is not SSA, the networks differ otherwise, or gate_scale is not 2
        where no BatchNorm can compensate.
    """
    flat = flax.traverse_util.flatten_dict({**variables})
    result, added = {}, []
    for path, leaf in flax.traverse_util.flatten_dict(variable_shapes(model, image_size)).items():
        if path in flat:
            result[path] = np.asarray(flat.pop(path))
            if result[path].shape != leaf.shape:
                raise ValueError(
                    f'{"/".join(path)} has shape {result[path].shape}, but the network with '
                    f'attention needs {leaf.shape}; the networks may differ only in attention.'
                )
        elif path[-3] in _SSA:
            added.append(path)
            result[path] = np.full(leaf.shape, 1.0 if path[-1] == 'var' else 0.0, np.float32)
        else:
            raise ValueError(
                f'{"/".join(path)} is missing from the weights and is not part of SSA: only models '
                'called ssa_... or gssa_... accept the weights of the same network without it.'
            )
    if flat or not added:
        names = ', '.join('/'.join(path) for path in list(flat)[:5])
        what = f'has no place for {names}' if flat else 'has no SSA block'
        raise ValueError(
            f'The network with attention {what}; the two networks may differ only in SSA.'
        )
    assert model.attention is not None  # where SSA was added
    block: Any = model.attention(parent=None)
    if block.gate_scale != 2:
        _scale_before(result, added, model, 2 / block.gate_scale)
    return flax.traverse_util.unflatten_dict(result)


def without_attention(model: Network) -> Network:
    """The same network without attention blocks."""
    return model.clone(attention=None, attention_stages=None, attention_blocks=None)


def _scale_before(
    result: dict[tuple[str, ...], np.ndarray],
    added: list[tuple[str, ...]],
    model: Network,
    factor: float,
) -> None:
    if not isinstance(model, ResNet) or model.attention_position != 'pre_residual':
        raise ValueError(
            f'gate_scale={2 / factor:g} starts with gates of {1 / factor:g}, which only the '
            "preceding BatchNorm of ResNets with attention_position='pre_residual' can compensate; "
            'choose gate_scale=2.'
        )
    for block in {path[1:-3] for path in added}:
        norms = [p for p in result if p[1:-2] == block and p[-2].startswith('bn')]
        last = max(path[-2] for path in norms)
        for leaf in ('scale', 'bias'):
            result[('params', *block, last, leaf)] = result[('params', *block, last, leaf)] * factor
