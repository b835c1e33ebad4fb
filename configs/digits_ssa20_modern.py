"""SSA-ResNet-20 on scikit-learn's handwritten digits, with the parts of modern recipes.

    ssanet train --config=digits_ssa20_modern --workdir=runs/digits_modern

The steps and batches of digits_ssa20.py, with recipe A3 of "ResNet strikes back" (Wightman et al.
2021, arXiv:2110.00476) as far as 8 pixels allow: LAMB, binary cross-entropy of targets above 0.2,
mixup 0.1, cutmix 1, RandAugment; and averaged weights. RandAugment is weaker, of magnitude 3:
rotations of 9 degrees and shifts of one pixel. No flips. Learning rate and horizon were not tuned.

It shows the parts at work in minutes. Measured: 99.17% top-1, the median of three seeds, no gain
over the plain recipe (docs/recipes.md).
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 64
    config.eval_batch_size = 360
    config.num_epochs = 60.0
    config.loss = 'binary_cross_entropy'
    config.target_threshold = 0.2
    config.dataset.name = 'digits'
    config.dataset.eval_split = 'test'
    config.dataset.in_memory = True
    config.dataset.image_size = 8
    config.dataset.mean = (0.3, 0.3, 0.3)
    config.dataset.std = (0.37, 0.37, 0.37)
    config.dataset.flip = False  # a mirrored digit is a different symbol
    config.dataset.train_crop = 'padded'
    config.dataset.crop_padding = 1
    config.dataset.eval_crop = 'whole'
    config.dataset.augment = 'rand-m3-mstd0.5-inc1'
    config.mix.mixup_alpha = 0.1
    config.mix.cutmix_alpha = 1.0
    config.ema.horizon = 0.05
    config.model.name = 'ssa_resnet20'
    config.optimizer.name = 'lamb'
    config.optimizer.learning_rate = 8e-3
    config.optimizer.reference_batch_size = 64
    config.optimizer.weight_decay = 0.02
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_epochs = 5.0
    return config
