"""Trained networks for others: StableHLO, TensorFlow's SavedModel, ONNX and safetensors.

docs/export.md has the commands, and how each is loaded.
"""

from ssanet_jax.export.exporting import FORMATS, export_run, require_packages
from ssanet_jax.export.parity import ParityError, evaluation_images, file_images
from ssanet_jax.export.weights_file import load_exported as load

__all__ = [
    'FORMATS',
    'ParityError',
    'evaluation_images',
    'export_run',
    'file_images',
    'load',
    'require_packages',
]
