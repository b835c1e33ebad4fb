"""Layers: BatchNorm, convolution, pooling, and affine maps that are never materialized."""

from ssanet_jax.layers.batch_norm import BatchNorm, FoldedBatchNorm, batch_norm
from ssanet_jax.layers.by_value import ValueModule, ValuePartial, unwrap_partial
from ssanet_jax.layers.conv_pool import (
    conv,
    he_normal,
    max_pool,
    max_pool_ceil,
    mean_pool,
    mean_pool_ceil,
    pointwise_conv,
    relu,
)
from ssanet_jax.layers.drop_path import drop_path
from ssanet_jax.layers.feature_map import (
    flatten_pixels,
    reduction_dtype,
    require_feature_map,
)

__all__ = [
    'BatchNorm',
    'FoldedBatchNorm',
    'ValueModule',
    'ValuePartial',
    'batch_norm',
    'conv',
    'drop_path',
    'flatten_pixels',
    'he_normal',
    'max_pool',
    'max_pool_ceil',
    'mean_pool',
    'mean_pool_ceil',
    'pointwise_conv',
    'reduction_dtype',
    'relu',
    'require_feature_map',
    'unwrap_partial',
]
