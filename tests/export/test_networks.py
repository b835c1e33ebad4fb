"""Small networks of every family and attention, as ONNX and StableHLO."""

import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from ssanet_jax import create_model
from ssanet_jax.attention import ATTENTION
from ssanet_jax.export import stablehlo
from ssanet_jax.export.onnx import to_onnx
from ssanet_jax.export.program import Program
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.mobilenet import Stage
from ssanet_jax.models.registry import NETWORKS
from tests.export.fabricated import random_variables
from tests.helpers import quick_jit

WIDTHS = ((8,) * 6,)
# Name, image size, and options that make it small.
CASES = [
    ('ssa_resnet50', 32, {'stage_sizes': (1, 1), 'width': 8, 'tail': 'folded'}),
    ('ssa_resnet50', 32, {'stage_sizes': (1, 1), 'width': 8, 'tail': 'plain'}),
    ('se_resnext50_32x4d', 32, {'stage_sizes': (1,)}),
    ('cbam_preact_resnet18', 32, {'stage_sizes': (1, 1), 'width': 16}),
    ('eca_vgg11_bn', 64, {'stage_sizes': (1, 1), 'widths': (8, 8), 'hidden': 8}),
    ('ca_densenet121', 32, {'stage_sizes': (2, 1), 'growth': 8, 'width': 8}),
    ('ge_googlenet', 64, {'stages': (WIDTHS, WIDTHS, WIDTHS)}),
    ('scse_mobilenet_v1', 32, {'stage_sizes': (1, 1), 'width': 8}),
    ('sse_mobilenet_v2', 32, {'stages': (Stage(1, 8, 1, 1), Stage(6, 8, 2, 2))}),
    ('simam_residual_attention56', 32, {'modules': (1,), 'width': 8, 'last_units': 1}),
    ('gssa_resnet20', 8, {'stage_sizes': (1, 1)}),
    ('sa_resnet20', 8, {'stage_sizes': (1,)}),
    ('ssa_resnet20', 8, {'stage_sizes': (1,), 'attention_options': {'squeeze': 'max'}}),
    ('ge_resnet20', 8, {'stage_sizes': (1,), 'attention_options': {'extent': 2}}),
    ('ssa_resnet50d', 36, {'stage_sizes': (1, 1), 'width': 8}),  # means at edges of 9 pixels
]

QUICK = (0, 1, 2, 7, 8, 12)  # exported without the mark slow


def test_the_cases_cover_every_family_and_attention():
    models = [create_model(name, num_classes=10, **options) for name, _, options in CASES]
    known = {type(create_model(name, num_classes=10)) for name in NETWORKS}
    assert {type(model) for model in models} == known
    assert {name.split('_')[0] for name, _, _ in CASES} == {*ATTENTION}


@pytest.mark.parametrize(
    ('name', 'size', 'options'),
    [
        pytest.param(*case, id=f'{i}_{case[0]}', marks=() if i in QUICK else pytest.mark.slow)
        for i, case in enumerate(CASES)
    ],
)
def test_exported_networks_keep_their_logits(name, size, options, tmp_path):
    model = create_model(name, num_classes=10, **options)
    variables = random_variables(model, size)
    images = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    expected = np.asarray(quick_jit(lambda x: model.apply(variables, x, train=False))(images))
    largest = np.abs(expected).max()

    program = Program(*for_inference(model, variables), preprocess=None, size=size)
    serialized = to_onnx(program, program.shape, jnp.float32).SerializeToString()
    session = onnxruntime.InferenceSession(serialized, providers=['CPUExecutionProvider'])
    (logits,) = session.run(['logits'], {'image': images})
    assert np.abs(logits - expected).max() <= 1e-4 * largest

    if 'tail' in options:  # what jax.export does to the others depends on no code of this package
        stablehlo.write(program, tmp_path, {})
        logits = np.asarray(stablehlo.load(tmp_path)(images)['logits'])
        assert np.abs(logits - expected).max() <= 1e-5 * largest
