r"""SSA-ResNet-18 on a folder of your own photographs.

    ssanet train --config=folder --workdir=runs/photos --config.dataset.data_dir=photos

The folder holds CLASS/NAME.jpg, or SPLIT/CLASS/NAME.jpg; docs/data.md says more. With few images,
fine-tune weights of torchvision's resnet18 instead of training from nothing:

    ssanet train --config=folder:resnet18.pth --workdir=runs/photos \
        --config.dataset.data_dir=photos
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config(weights: str | None = None) -> ConfigDict:
    """The recipe; `weights` is a file of a ResNet-18 without attention, such as torchvision's."""
    config = base()
    config.batch_size = 16
    config.eval_batch_size = 64
    config.num_epochs = 30.0
    config.dataset.name = 'folder'
    config.dataset.image_size = 128
    config.dataset.crop_area = (0.35, 1.0)  # objects fill photographs more than ImageNet's
    config.model.name = 'ssa_resnet18'
    config.optimizer.learning_rate = 0.02
    config.optimizer.reference_batch_size = 16
    config.optimizer.weight_decay = 5e-4
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_epochs = 1.0
    config.label_smoothing = 0.1
    if weights:
        config.init.weights = weights
        config.init.attention = 'insert'
        config.init.head = 'new'
        config.num_epochs = 15.0
        config.dataset.image_size = 224
        config.optimizer.learning_rate = 0.005
    return config
