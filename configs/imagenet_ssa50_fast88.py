"""SSA-ResNet-50 on ImageNet-1k in 88 epochs, the recipe of ffcv, of small images that grow.

    ssanet train --config=imagenet_ssa50_fast88 --workdir=runs/ssa50_fast88

rn50_88_epochs.yaml of github.com/libffcv/ffcv-imagenet: that of 16 epochs, beside this file, with
images that grow from epoch 65 to 76.

Theirs, ResNet-50: 78.4% top-1. Ours: not measured yet.
Other networks: --config.model.name=resnet50 (theirs, without BlurPool) or se_resnet50.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    shortest = Path(__file__).with_name('imagenet_ssa50_fast16.py')
    config = runpy.run_path(str(shortest))['get_config']()
    config.num_epochs = 88.0
    config.dataset.growth_epochs = (65.0, 76.0)
    return config
