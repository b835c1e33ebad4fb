"""SSANet (Squeeze and Spatial Attention Networks) in JAX.

Importing this package needs jax and flax only; the training loop and the data, which
need more, are imported by name: `ssanet_jax.training`, `ssanet_jax.data`.
"""

from ssanet_jax.attention import SEBlock, SSABlock
from ssanet_jax.inference import fold_batch_norm
from ssanet_jax.models import ResNet, create_model, model_names
from ssanet_jax.version import __version__

__all__ = [
    'ResNet',
    'SEBlock',
    'SSABlock',
    '__version__',
    'create_model',
    'fold_batch_norm',
    'model_names',
]
