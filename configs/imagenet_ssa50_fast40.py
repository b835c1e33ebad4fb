"""SSA-ResNet-50 on ImageNet-1k in 40 epochs, the recipe of ffcv, of small images that grow.

    ssanet train --config=imagenet_ssa50_fast40 --workdir=runs/ssa50_fast40

rn50_40_epochs.yaml of github.com/libffcv/ffcv-imagenet: that of 16 epochs, beside this file, with
images that grow from epoch 29 to 34.

Theirs, ResNet-50: 77.2% top-1. Ours: not measured yet.
Other networks: --config.model.name=resnet50 (theirs, without BlurPool) or se_resnet50.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    shortest = Path(__file__).with_name('imagenet_ssa50_fast16.py')
    config = runpy.run_path(str(shortest))['get_config']()
    config.num_epochs = 40.0
    config.dataset.growth_epochs = (29.0, 34.0)
    return config
