"""Networks with an attention slot, and `create_model` to make them by name."""

from ssanet_jax.models.registry import create_model, model_names
from ssanet_jax.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ['BasicBlock', 'Bottleneck', 'ResNet', 'create_model', 'model_names']
