"""Weights of other libraries in and out, and attention put into trained networks."""

from ssanet_jax.weights.convert import from_torch, num_classes, to_arrays, to_torch
from ssanet_jax.weights.files import read, write
from ssanet_jax.weights.insertion import insert_attention, without_attention

__all__ = [
    'from_torch',
    'insert_attention',
    'num_classes',
    'read',
    'to_arrays',
    'to_torch',
    'without_attention',
    'write',
]
