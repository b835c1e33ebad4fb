"""Networks with attention slots, and `create_model` to make them by name."""

from ssanet_jax.models.densenet import DenseNet
from ssanet_jax.models.googlenet import GoogLeNet
from ssanet_jax.models.mobilenet import MobileNet, MobileNetV2
from ssanet_jax.models.name_mapping import NameMapping
from ssanet_jax.models.network import ConvNorm, Network
from ssanet_jax.models.preact_resnet import PreActResNet
from ssanet_jax.models.registry import create_model, model_names
from ssanet_jax.models.residual_attention import ResidualAttentionNetwork
from ssanet_jax.models.residual_block import BasicBlock, Bottleneck
from ssanet_jax.models.resnet import ResNet
from ssanet_jax.models.vgg import VGG

__all__ = [
    'VGG',
    'BasicBlock',
    'Bottleneck',
    'ConvNorm',
    'DenseNet',
    'GoogLeNet',
    'MobileNet',
    'MobileNetV2',
    'NameMapping',
    'Network',
    'PreActResNet',
    'ResNet',
    'ResidualAttentionNetwork',
    'create_model',
    'model_names',
]
