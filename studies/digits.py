"""Attention in a thin ResNet-20 on scikit-learn's handwritten digits; see PROTOCOL.md."""

from functools import partial

from controls import ConstantGate, ShuffledSSA
from ml_collections import ConfigDict

from configs import digits_ssa20
from ssanet_jax.study import Study, Variant


def get_config() -> ConfigDict:
    config = digits_ssa20.get_config()
    config.num_epochs = 40.0
    config.dataset.train_split = 'train[:50%]'
    config.dataset.eval_split = 'train[50%:]+test'
    config.model.name = 'resnet20'
    return config


def get_study() -> Study:
    return Study(
        question='Does attention help a thin ResNet-20 on digits?',
        config=get_config(),
        variants={
            'none': Variant(),
            'ssa': named('ssa'),
            'ssa_mean': named('ssa', **{'model.ssa.combine': 'mean'}),
            'ssa_max': named('ssa', **{'model.ssa.squeeze': 'max'}),
            'ssa_grouped': named('ssa', **{'model.ssa.num_groups': 4}),
            'se': named('se'),
            'eca': named('eca'),
            'cbam': named('cbam'),
            'simam': named('simam'),
            'conv_gate': named('sa'),
            'constant': Variant(attention=partial(ConstantGate, name='constant')),
            'shuffled': Variant(attention=partial(ShuffledSSA, name='shuffled')),
        },
        seeds=range(20),
        smallest_effect=0.3,
    )


def named(kind: str, **overrides: object) -> Variant:
    """The variant with an attention block of `ATTENTION`."""
    return Variant({'model.name': f'{kind}_resnet20', **overrides})
