"""SSA-ResNet-50 on ImageNet-1k in batches of 8192 images, for TPU pods and GPU clusters.

    ssanet train --config=imagenet_ssa50_large_batch --workdir=runs/ssa50_large_batch

The recipe of Goyal et al. (2017, "Accurate, Large Minibatch SGD", arXiv:1706.02677) for ResNet-50:
learning rate 0.1 per 256 images, whatever the batch size, after 5 epochs of warm-up; divided by 10
at epochs 30, 60 and 80 of 90; Nesterov momentum; no weight decay on biases and BatchNorm; the last
BatchNorm of each residual branch starts at 0. They warm up from the learning rate of 256 images,
this from 0, and their BatchNorms see 32 images each, ours those of a device.

Goyal et al., ResNet-50: 76.26% top-1 with 8192 images, 76.40% with 256. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.batch_size = 8192
    config.num_epochs = 90.0
    config.dtype = 'bfloat16'
    config.model.name = 'ssa_resnet50'
    config.model.zero_init_residual = True
    config.optimizer.reference_batch_size = 256
    config.optimizer.nesterov = True
    config.optimizer.decay_parameters = 'kernels'
    config.optimizer.warmup_epochs = 5.0
    config.optimizer.decay_epochs = (30.0, 60.0, 80.0)
    return config
