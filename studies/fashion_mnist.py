"""Attention in a thin ResNet-8 on Fashion-MNIST; see PROTOCOL.md."""

from functools import partial

from controls import ConstantGate

from configs import fashion_mnist_ssa20
from ssanet_jax.study import Study, Variant
from ssanet_jax.study.corruptions import CORRUPTIONS


def get_study() -> Study:
    config = fashion_mnist_ssa20.get_config()
    config.num_epochs = 5.0
    config.batch_size = 32  # faster than 128 on a CPU: activations stay in its cache
    config.eval_batch_size = 100
    config.log_every_steps = 375
    config.checkpoint_every_steps = 1875
    config.model.name = 'resnet8'
    return Study(
        question='Does attention help a thin ResNet-8 on Fashion-MNIST?',
        config=config,
        variants={
            'none': Variant(),
            'ssa': Variant({'model.name': 'ssa_resnet8'}),
            'se': Variant({'model.name': 'se_resnet8'}),
            'constant': Variant(attention=partial(ConstantGate, name='constant')),
        },
        seeds=range(10),
        smallest_effect=0.2,
        corruptions=list(CORRUPTIONS),
    )
