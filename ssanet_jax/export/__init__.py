"""Export of trained networks to StableHLO, TensorFlow SavedModel, ONNX and safetensors.

docs/export.md shows the commands and how to load each format.
"""

from ssanet_jax.export.export import FORMATS, export_trained, require_packages
from ssanet_jax.export.parity import ParityError, evaluation_images, file_images

__all__ = [
    'FORMATS',
    'ParityError',
    'evaluation_images',
    'export_trained',
    'file_images',
    'require_packages',
]
