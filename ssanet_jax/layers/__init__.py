"""Layers: BatchNorm, convolution, pooling, and affine maps that are never materialized."""

from ssanet_jax.layers.batch_norm import BatchNorm, FoldedBatchNorm, batch_norm
from ssanet_jax.layers.conv_pool import (
    conv,
    he_normal,
    max_pool,
    max_pool_ceil,
    mean_pool,
    pointwise_conv,
    relu,
)
from ssanet_jax.layers.feature_map import (
    ValuePartial,
    flatten_pixels,
    reduction_dtype,
    require_feature_map,
    unwrap_partial,
)

__all__ = [
    'BatchNorm',
    'FoldedBatchNorm',
    'ValuePartial',
    'batch_norm',
    'conv',
    'flatten_pixels',
    'he_normal',
    'max_pool',
    'max_pool_ceil',
    'mean_pool',
    'pointwise_conv',
    'reduction_dtype',
    'relu',
    'require_feature_map',
    'unwrap_partial',
]
