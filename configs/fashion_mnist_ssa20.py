"""SSA-ResNet-20 on Fashion-MNIST, from its four files or Debian's package.

    apt install dataset-fashion-mnist
    ssanet train --config=fashion_mnist_ssa20 --workdir=runs/fashion_mnist

Without Debian, download the files and set --config.dataset.manual_dir=FOLDER.

Measured: 91.99% top-1 with `--config.num_epochs=4`; the 30 epochs were not run.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.num_epochs = 30.0
    config.eval_batch_size = 500
    config.dataset.name = 'fashion_mnist_idx'
    config.dataset.manual_dir = '/usr/share/datasets/fashion-mnist'
    config.dataset.eval_split = 'test'
    config.dataset.in_memory = True
    config.dataset.image_size = 28
    config.dataset.mean = (0.286, 0.286, 0.286)
    config.dataset.std = (0.353, 0.353, 0.353)
    config.dataset.train_crop = 'padded'
    config.dataset.crop_padding = 2
    config.dataset.eval_crop = 'whole'
    config.model.name = 'ssa_resnet20'
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = 'cosine'
    return config
