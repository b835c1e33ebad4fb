"""SSA-ResNet-50 on ImageNet-1k in 88 epochs: ffcv's recipe with progressive resizing.

    ssanet train --config=imagenet_ssa50_fast88 --workdir=runs/ssa50_fast88

rn50_88_epochs.yaml of github.com/libffcv/ffcv-imagenet: batches of 4096 (8 GPUs with 512), SGD with
momentum 0.9, learning rate 1.7 after 2 epochs of warm-up, then down to 0 in a straight line; weight
decay 1e-4, label smoothing 0.1; training images grow from 160 to 192 pixels between epochs 65 and
76. Evaluated at 256 pixels, averaging the logits of each image and its mirror image.

They blur the input of each strided convolution but the first (BlurPool), which this recipe omits;
decay the last layer's bias and the BatchNorms of shortcuts, not decayed here; and train on images
stored with at most 500 pixels a side. Their resize averages areas; here it is bilinear with
antialiasing.

Theirs, ResNet-50: 78.4% top-1. Ours: not measured yet.
Other networks: --config.model.name=resnet50 (theirs, without BlurPool) or se_resnet50.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 4096
    config.num_epochs = 88.0
    config.dtype = 'bfloat16'
    config.label_smoothing = 0.1
    config.dataset.initial_size = 160
    config.dataset.image_size = 192
    config.dataset.growth_epochs = (65.0, 76.0)
    config.dataset.antialias = True
    config.dataset.eval_size = 256
    config.dataset.eval_flip = True
    config.model.name = 'ssa_resnet50'
    config.optimizer.learning_rate = 1.7
    config.optimizer.reference_batch_size = 4096
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.schedule = 'polynomial'
    config.optimizer.warmup_epochs = 2.0
    config.optimizer.warmup_start = 1e-4
    return config
