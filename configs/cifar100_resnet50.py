"""ResNet-50 on CIFAR-100, the SSANet authors' recipe.

    python main.py --config=configs/cifar100_resnet50.py --workdir=runs/cifar100_resnet50

Paper: 77.26% top-1. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 100
    config.num_epochs = 250.0
    config.dataset.name = 'cifar100'
    config.dataset.eval_split = 'test'
    config.dataset.reader = 'memory'
    config.dataset.image_size = 32
    config.dataset.mean = (0.4914, 0.4822, 0.4465)
    config.dataset.std = (0.2023, 0.1994, 0.2010)
    config.model.name = 'resnet50'
    config.model.stem = 'cifar'
    config.optimizer.reference_batch_size = 100
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_epochs = (50.0, 100.0, 150.0, 200.0)
    return config
