"""SSA-ResNet-50 on ImageNet-1k with torchvision's recipe of 2021, 600 epochs.

    ssanet train --config=imagenet_ssa50_torchvision2 --workdir=runs/ssa50_tv2

The recipe of its weights IMAGENET1K_V2 (pytorch.org/blog/how-to-train-state-of-the-art-models-
using-torchvision-latest-primitives, github.com/pytorch/vision/issues/3995): SGD with momentum 0.9,
0.5 for 1024 images, cosine after 5 epochs of warm-up from a hundredth; weight decay 2e-5, none on
BatchNorm; label smoothing 0.1; mixup 0.2 or cutmix 1; TrivialAugment, random erasing 0.1, four
crops per example; averaged weights. Trained at 176 pixels, tested at 224 of a short side of 232.

Here the learning rate changes per step, theirs per epoch; the average is updated per step, theirs
per 32 steps, with the same horizon; the last layer's bias is not decayed.

Theirs, ResNet-50: 80.858% top-1, 95.434% top-5. Ours: not measured yet.
Other networks: --config.model.name=resnet50 or se_resnet50.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 1024
    config.num_epochs = 600.0
    config.dtype = 'bfloat16'
    config.label_smoothing = 0.1
    config.dataset.image_size = 176
    config.dataset.eval_size = 224
    config.dataset.eval_crop_pct = 224 / 232
    config.dataset.antialias = True
    config.dataset.augment = 'trivial_wide'
    config.dataset.random_erasing = 0.1
    config.dataset.repeats = 4
    config.mix.mixup_alpha = 0.2
    config.mix.cutmix_alpha = 1.0
    config.ema.horizon = 0.039
    config.model.name = 'ssa_resnet50'
    config.optimizer.learning_rate = 0.5
    config.optimizer.reference_batch_size = 1024
    config.optimizer.weight_decay = 2e-5
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.schedule = 'cosine'
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.warmup_start = 0.01
    return config
