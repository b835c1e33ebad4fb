"""Import and export of torch weights, and insertion of attention into pretrained networks."""

from ssanet_jax.weights.convert import from_torch, num_classes, to_arrays, to_torch
from ssanet_jax.weights.files import load, save
from ssanet_jax.weights.insertion import insert_attention, without_attention

__all__ = [
    'from_torch',
    'insert_attention',
    'load',
    'num_classes',
    'save',
    'to_arrays',
    'to_torch',
    'without_attention',
]
