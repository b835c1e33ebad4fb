"""SSA-ResNet-18 on CIFAR-10 in 30 epochs.

    ssanet train --config=cifar10_ssa18_30 --workdir=runs/cifar10_ssa18_30

From D. Page, "How to Train Your ResNet 3: Regularisation" (github.com/davidcpage/cifar10-fast,
experiments.ipynb, "cutout+30 epochs+batch_size=512"): Nesterov SGD, learning rate 0 at first, 0.4
at epoch 8, 0 at epoch 30, straight lines between; weight decay 5e-4 on everything; cutout of 8
pixels. He pads by reflection and cuts inside of the image, here with zeros and across its border.

His, a pre-activation ResNet of 8 blocks, one run: 94.14% top-1. Ours: not measured yet.
Other networks: --config.model.name=resnet18 or se_resnet18.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import cifar


def get_config() -> ConfigDict:
    config = cifar('cifar10')
    config.batch_size = 512
    config.num_epochs = 30.0
    config.dtype = 'bfloat16'
    config.dataset.cutout = 8
    config.model.name = 'ssa_resnet18'
    config.optimizer.learning_rate = 0.4
    config.optimizer.reference_batch_size = 512
    config.optimizer.nesterov = True
    config.optimizer.schedule = 'piecewise'
    config.optimizer.knot_epochs = (0.0, 8.0, 30.0)
    config.optimizer.knot_factors = (0.0, 1.0, 0.0)
    return config
