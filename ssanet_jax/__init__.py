"""SSANet (Squeeze and Spatial Attention Networks) in JAX.

Importing this package needs jax and flax only. The training loop and the input pipeline need
more and are imported by name: `ssanet_jax.training`, `ssanet_jax.data`.
"""

import os
from typing import TYPE_CHECKING

from ssanet_jax.analysis.feature_maps import feature_maps
from ssanet_jax.attention import (
    CBAMBlock,
    CoordinateBlock,
    ECABlock,
    GEBlock,
    SCSEBlock,
    SEBlock,
    SimAMBlock,
    SpatialBlock,
    SSABlock,
    SSEBlock,
)
from ssanet_jax.models import Network, ResNet, create_model, model_names
from ssanet_jax.models.batch_norm_folding import fold_batch_norm
from ssanet_jax.version import __version__
from ssanet_jax.weights import from_torch, insert_attention, to_torch

if TYPE_CHECKING:
    from ssanet_jax.trained.sources import AnyModel


def load(source: str | os.PathLike[str], checkpoint: str = 'best') -> 'AnyModel':
    """Loads a trained network: its model, variables, preprocessing and class names.

    Nothing that is read is executed. The SHA-256 of the weights is verified: in folders and on the
    Hub by config.json; of torchvision by its first 8 digits, which it publishes; of timm where the
    Hub's cache has symbolic links. Checkpoints of a run have checksums of their own.
    docs/publish.md says what each source needs.

    Args:
      source: the folder of `ssanet publish` or of `ssanet export --format=safetensors`;
        'hf://USER/NAME' or 'hf://USER/NAME@REVISION', such a folder on the Hugging Face Hub;
        'torchvision://resnet50.IMAGENET1K_V2' or 'timm://resnet50.a1_in1k', weights for ImageNet,
        as `pretrained.hosted.hosted_weights()` lists them; or the workdir of a run, which needs the
        packages of the extra `train`, but neither TensorFlow nor the run's data.
      checkpoint: of a run: 'best', 'latest' or a step; with ':raw', as in 'best:raw', the weights
        of the last step rather than their averages, in a run with config.ema.

    Returns:
      A `PretrainedModel`; for a run a `TrainedModel`, which has the config too.

    Raises:
      ConfigError: there is no such source or checkpoint, it is damaged, or a package is missing.
      RunError: the checkpoint of a run cannot be read now.
    """
    from ssanet_jax.trained import sources

    return sources.load(source, checkpoint)


__all__ = [
    'CBAMBlock',
    'CoordinateBlock',
    'ECABlock',
    'GEBlock',
    'Network',
    'ResNet',
    'SCSEBlock',
    'SEBlock',
    'SSABlock',
    'SSEBlock',
    'SimAMBlock',
    'SpatialBlock',
    '__version__',
    'create_model',
    'feature_maps',
    'fold_batch_norm',
    'from_torch',
    'insert_attention',
    'load',
    'model_names',
    'to_torch',
]
