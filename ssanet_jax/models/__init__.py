"""Networks with attention slots, and `create_model` to make them by name."""

from ssanet_jax.models.network import Network
from ssanet_jax.models.registry import create_model, model_names
from ssanet_jax.models.resnet import BasicBlock, Bottleneck, ResNet

__all__ = ['BasicBlock', 'Bottleneck', 'Network', 'ResNet', 'create_model', 'model_names']
