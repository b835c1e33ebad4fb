"""ResNet-50 on ImageNet-1k, the SSANet authors' recipe, which is base().

    python main.py --config=configs/imagenet_resnet50.py --workdir=runs/imagenet_resnet50

Paper: 75.24% top-1, 92.36% top-5. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.model.name = 'resnet50'
    return config
