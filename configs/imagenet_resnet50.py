"""ResNet-50 on ImageNet-1k, the SSANet authors' recipe.

    ssanet train --config=imagenet_resnet50 --workdir=runs/imagenet_resnet50

Settings of base(): 100 epochs, batch size 128, SGD with momentum 0.9 and weight decay 1e-4,
learning rate 0.1 divided by 10 every 30 epochs, random resized crops of 224 pixels.

Paper: 75.24% top-1, 92.36% top-5. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.model.name = 'resnet50'
    return config
