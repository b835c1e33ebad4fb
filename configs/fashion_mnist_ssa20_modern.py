"""SSA-ResNet-20 on Fashion-MNIST, with the parts of modern recipes.

    apt install dataset-fashion-mnist
    ssanet train --config=fashion_mnist_ssa20_modern --workdir=runs/fashion_modern

Without Debian, download the files and set --config.dataset.manual_dir=FOLDER.

The steps and batches of fashion_mnist_ssa20.py, with parts of torchvision's recipe
(imagenet_ssa50_torchvision2.py): Nesterov SGD with warm-up, label smoothing 0.1, mixup 0.2 or
cutmix 1, averaged weights; and random erasing of half of the images, as Zhong et al. (2017,
arXiv:1708.04896), ResNet-20 in 300 epochs: 95.98% top-1, 95.61% without erasing. No TrivialAugment,
which shifts by up to 32 pixels, more than an image has. Ours: in ResNet-8 and 5 epochs, worse than
the plain recipe (docs/recipes.md); 30 epochs were not run.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.num_epochs = 30.0
    config.eval_batch_size = 500
    config.label_smoothing = 0.1
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
    config.dataset.random_erasing = 0.5
    config.mix.mixup_alpha = 0.2
    config.mix.cutmix_alpha = 1.0
    config.ema.horizon = 0.039
    config.model.name = 'ssa_resnet20'
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-4
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_epochs = 2.0
    return config
