"""SSA-ResNet-18 on CIFAR-100 with cutout, 200 epochs.

    ssanet train --config=cifar100_ssa18_200 --workdir=runs/cifar100_ssa18_200

The recipe of DeVries and Taylor (2017, arXiv:1708.04552, github.com/uoguelph-mlrg/Cutout): Nesterov
SGD, batches of 128, learning rate 0.1 divided by 5 at epochs 60, 120 and 160, weight decay 5e-4,
cutout of 8 pixels. Images are normalized by other means and deviations of the same dataset.

Theirs, ResNet-18, mean of five runs: 78.04% top-1, 77.54% without cutout. Ours: not measured yet.
Other networks: --config.model.name=resnet18 or se_resnet18.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import cifar


def get_config() -> ConfigDict:
    config = cifar('cifar100')
    config.batch_size = 128
    config.num_epochs = 200.0
    config.dataset.cutout = 8
    config.model.name = 'ssa_resnet18'
    config.optimizer.reference_batch_size = 128
    config.optimizer.nesterov = True
    config.optimizer.decay_epochs = (60.0, 120.0, 160.0)
    config.optimizer.decay_factor = 0.2
    return config
