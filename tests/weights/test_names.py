"""Names and shapes of weights, against the libraries; see tests/golden/make_torch.py."""

import json
import re

import jax
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.weights import convert, from_torch, to_arrays
from tests.golden import rule
from tests.helpers import ROOT, assert_trees_equal
from tests.weights.bits import bits, random_bits

THEIRS = json.loads((ROOT / 'tests' / 'golden' / 'names.json').read_text())
# Their names and ours.
OURS = [
    ('mobilenetv1_100', 'mobilenet_v1'),
    ('mobilenetv2_100', 'mobilenet_v2'),
    ('resnetv2_', 'preact_resnet'),
    ('seresnet', 'se_resnet'),
]


def same_network(case):
    """Our network and the naming for a library's network."""
    naming, name = case.split()
    for theirs, ours in OURS:
        name = name.replace(theirs, ours)
    options = {'attention_options': {'mlp_bias': False}} if name.startswith('cbam') else {}
    if naming == 'ssanet_cifar':
        options['stem'] = 'cifar'
    return create_model(name, num_classes=rule.CLASSES, **options), naming


def shapes_of(variables, model, naming):
    """The shape of each weight under a naming."""
    arrays = to_arrays(variables, model, naming=naming)
    return {name: list(array.shape) for name, array in arrays.items()}


def zeros(shapes):
    return jax.tree.map(
        lambda shape: np.broadcast_to(np.float32(0), shape),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple | list),
    )


@pytest.mark.parametrize('case', THEIRS['shapes'])
def test_names_and_shapes_equal_the_librarys_and_are_detected(case):
    model, naming = same_network(case)
    variables = from_torch(zeros(THEIRS['shapes'][case]), model)
    assert shapes_of(variables, model, naming) == THEIRS['shapes'][case]


# One per rule that only deeper networks have; the names above cover the others.
DEEPER = {
    'torchvision resnet50',
    'torchvision resnext50_32x4d',
    'torchvision densenet121',
    'timm resnet50d',
    'timm resnetv2_50',
    'timm seresnet50',
    'timm cbam_resnet50',
    'ssanet ssa_resnet50',
    'ssanet_cifar resnet50',
}


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, marks=() if case in DEEPER else pytest.mark.slow, id=case)
        for case in THEIRS['sha256']
    ],
)
def test_names_and_shapes_of_deeper_networks_equal_the_librarys(case):
    model, naming = same_network(case)
    shapes = jax.tree.map(lambda leaf: leaf.shape, convert.variable_shapes(model))
    assert rule.sha256(shapes_of(zeros(shapes), model, naming)) == THEIRS['sha256'][case]


# Options that make networks narrow.
NARROW = {
    'vgg': {'widths': (8, 8, 8, 8, 8), 'hidden': 16},
    'densenet': {'growth': 4, 'width': 8},
    'googlenet': {'stages': (((8, 8, 8, 8, 8, 8),),)},
    'mobilenet_v1': {'width': 8},
    'mobilenet_v2': {'head_width': 16},
}
ONE_OF_A_KIND = (
    'resnet18',
    'resnet20',
    'resnet50',
    'resnet50d',
    'resnext50_32x4d',
    'preact_resnet18',
    'wide_resnet16_8',
    'vgg11_bn',
    'densenet121',
    'googlenet',
    'mobilenet_v1',
    'mobilenet_v2',
    'residual_attention56',
)
ROUND_TRIPS = [
    *(
        pytest.param(name, marks=() if name in ONE_OF_A_KIND else pytest.mark.slow, id=name)
        for name in NETWORKS
    ),
    *(f'{kind}_resnet18' for kind in sorted(ATTENTION)),
]


@pytest.mark.parametrize('name', ROUND_TRIPS)
def test_a_round_trip_under_any_naming_is_bit_exact(name, monkeypatch):
    options = next((o for kind, o in NARROW.items() if kind in name), {'width': 16})
    model = create_model(name, num_classes=5, **options)
    shapes = convert.variable_shapes(model)
    monkeypatch.setattr(convert, 'variable_shapes', lambda *_: shapes)  # traced once
    variables = random_bits(shapes)
    for naming in convert.namings(model):
        state_dict = to_arrays(variables, model, naming=naming)
        assert_trees_equal(bits(from_torch(state_dict, model, naming=naming)), bits(variables))


def test_names_in_the_files_of_densenets_are_those_that_torchvision_renames_on_loading():
    """Torchvision joins 'norm.1' to 'norm1', and so on, inside the dense layers."""
    model = create_model('densenet121', num_classes=2, stage_sizes=(1,))
    variables = random_bits(convert.variable_shapes(model))
    plain, files = (
        to_arrays(variables, model, naming=naming)
        for naming in ('torchvision', 'torchvision_files')
    )
    assert 'features.denseblock1.denselayer1.norm.1.running_mean' in files
    renamed = {re.sub(r'(denselayer\d+\.(?:norm|conv))\.([12]\.)', r'\1\2', n) for n in files}
    assert renamed == plain.keys()
    assert_trees_equal(bits(from_torch(files, model)), bits(variables))
