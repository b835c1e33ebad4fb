"""SSA-ResNet-50 on CIFAR-10, the SSANet authors' recipe.

    ssanet train --config=cifar10_ssa50 --workdir=runs/cifar10_ssa50

Settings of cifar(): 250 epochs, batch size 100, SGD with momentum 0.9 and weight decay 5e-4,
learning rate 0.1 divided by 10 every 50 epochs, random crops after padding by 4.

Released log, best epoch: 94.93% top-1; the paper prints its CIFAR-100 figure. Ours: not measured
yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import cifar


def get_config() -> ConfigDict:
    config = cifar('cifar10')
    config.model.name = 'ssa_resnet50'
    return config
