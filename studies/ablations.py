"""Parts of SSA changed one at a time, in a thin ResNet-20 on digits; see PROTOCOL.md."""

from functools import partial

import digits
from controls import ConstantGate, FixedGate

from ssanet_jax.attention import SSABlock
from ssanet_jax.study import Study, Variant


def get_study() -> Study:
    return Study(
        question='Which parts of SSA matter in a thin ResNet-20 on digits?',
        config=digits.get_config(),
        variants={
            'ssa': digits.named('ssa'),
            'none': Variant(),
            'post_residual': ssa(**{'model.attention_position': 'post_residual'}),
            'stage_1': ssa(**{'model.attention_stages': (1,)}),
            'stage_2': ssa(**{'model.attention_stages': (2,)}),
            'stage_3': ssa(**{'model.attention_stages': (3,)}),
            'identity_start': ssa(**{'model.ssa.zero_init': True, 'model.ssa.gate_scale': 2.0}),
            'half_start': ssa(**{'model.ssa.zero_init': True}),
            'mean': ssa(**{'model.ssa.combine': 'mean'}),
            'mean_small_epsilon': Variant(
                attention=partial(SSABlock, combine='mean', epsilon=1e-9, name='ssa')
            ),
            'constant': Variant(attention=partial(ConstantGate, name='constant')),
            'constant_from_one': Variant(
                attention=partial(ConstantGate, gate_scale=2.0, name='constant')
            ),
            'fixed_half': Variant(attention=partial(FixedGate, factor=0.5, name='fixed')),
        },
        seeds=range(20),
        smallest_effect=0.3,
        baseline='ssa',
    )


def ssa(**overrides: object) -> Variant:
    return digits.named('ssa', **overrides)
