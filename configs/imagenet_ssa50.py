"""SSA-ResNet-50 on ImageNet-1k, the SSANet authors' recipe, which is base().

    python main.py --config=configs/imagenet_ssa50.py --workdir=runs/imagenet_ssa50

Paper: 76.61% top-1, 93.29% top-5. Ours: not measured yet.
"""

from ml_collections import ConfigDict

from ssanet_jax.config import base


def get_config() -> ConfigDict:
    config = base()
    config.model.name = 'ssa_resnet50'
    return config
