"""SSA-ResNet-50 on ImageNet-1k with recipe A1 of "ResNet strikes back", 600 epochs.

    ssanet train --config=imagenet_ssa50_a1 --workdir=runs/ssa50_a1

Wightman et al. (2021, arXiv:2110.00476), table 2: LAMB, learning rate 5e-3 for 2048 images, cosine
after 5 epochs of warm-up; weight decay 0.01, none on biases and BatchNorm; binary cross-entropy
with label smoothing 0.1; mixup 0.2 or cutmix 1; RandAugment of magnitude 7, three crops per
example, stochastic depth 0.05. Evaluated with a crop ratio of 0.95.

Where the table is silent, as in timm then: gradients clipped to a norm of 1 by its Lamb; residual
branches that start at 0; warm-up from 1e-4 and decay to 1e-6, per epoch there, per step here. timm
also draws the interpolation of each crop; here it is bicubic. After a threshold of targets, as in
A2, smoothing would have no effect, in timm as here; A1 has none, as in mmpretrain, and so mixed
labels stay fractions.

timm's cosine runs over all 600 epochs, under the warm-up; here it begins after the warm-up, and
late learning rates are up to 2% higher. timm then added 10 epochs at the last learning rate
(`--cooldown-epochs 10`, its default), left out here.

Theirs, ResNet-50: 80.4% top-1. Ours: not measured yet.
Other networks: --config.model.name=resnet50 or se_resnet50.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 2048
    config.num_epochs = 600.0
    config.dtype = 'bfloat16'
    config.loss = 'binary_cross_entropy'
    config.label_smoothing = 0.1
    config.dataset.eval_crop_pct = 224 / 235
    config.dataset.interpolation = 'bicubic'
    config.dataset.antialias = True
    config.dataset.augment = 'rand-m7-mstd0.5-inc1'
    config.dataset.repeats = 3
    config.mix.mixup_alpha = 0.2
    config.mix.cutmix_alpha = 1.0
    config.model.name = 'ssa_resnet50'
    config.model.zero_init_residual = True
    config.model.stochastic_depth = 0.05
    config.optimizer.name = 'lamb'
    config.optimizer.learning_rate = 5e-3
    config.optimizer.reference_batch_size = 2048
    config.optimizer.weight_decay = 0.01
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.clip_norm = 1.0
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_start = 1e-4 / 5e-3
    config.optimizer.floor = 1e-6 / 5e-3
    return config
