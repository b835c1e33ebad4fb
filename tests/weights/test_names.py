"""Names and shapes of weights against those of the libraries, see tests/golden/make_torch.py."""

import functools
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
# Ours, by their names.
OURS = [
    ('mobilenetv1_100', 'mobilenet_v1'),
    ('mobilenetv2_100', 'mobilenet_v2'),
    ('resnetv2_', 'preact_resnet'),
    ('seresnet', 'se_resnet'),
]


@functools.cache
def network(name, stem):
    """Our network of that name, and the shapes of its variables."""
    options = {'attention_options': {'mlp_bias': False}} if name.startswith('cbam') else {}
    model = create_model(name, num_classes=rule.CLASSES, stem=stem, **options)
    return model, jax.tree.map(lambda leaf: leaf.shape, convert.variable_shapes(model))


def same_network(case):
    """Ours, its shapes, and the naming, of a library's network."""
    naming, name = case.split()
    for theirs, ours in OURS:
        name = name.replace(theirs, ours)
    return *network(name, 'cifar' if naming == 'ssanet_cifar' else 'imagenet'), naming


def shapes_here(case):
    """By the library's names."""
    model, shapes, naming = same_network(case)
    empty = jax.tree.map(
        lambda shape: np.broadcast_to(np.int8(0), shape),
        shapes,
        is_leaf=lambda shape: isinstance(shape, tuple),
    )
    arrays = to_arrays(empty, model, naming=naming)
    return {name: list(array.shape) for name, array in arrays.items()}


@pytest.mark.parametrize('case', THEIRS['shapes'])
def test_names_and_shapes_are_exactly_the_librarys(case):
    assert shapes_here(case) == THEIRS['shapes'][case]


# Those of 50 layers are called by the same rules; and by timm's names, as by torchvision's.
AGAIN = re.compile(r'.*(101|152)|timm (resne[tx]+\d|wide|densenet)')


@pytest.mark.parametrize(
    'case',
    [
        pytest.param(case, marks=pytest.mark.slow if AGAIN.match(case) else (), id=case)
        for case in THEIRS['sha256']
    ],
)
def test_names_and_shapes_of_deeper_networks_are_exactly_the_librarys(case):
    assert rule.sha256(shapes_here(case)) == THEIRS['sha256'][case]


@pytest.mark.parametrize('case', THEIRS['shapes'])
def test_weights_by_the_librarys_names_find_their_places_unasked(case):
    model, shapes, _ = same_network(case)
    state_dict = {
        name: np.broadcast_to(np.float32(0), shape)
        for name, shape in THEIRS['shapes'][case].items()
    }
    assert jax.tree.map(np.shape, from_torch(state_dict, model)) == shapes


# Networks whose widths have other names.
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
def test_no_bit_is_lost_there_and_back_by_any_names(name, monkeypatch):
    options = next((o for kind, o in NARROW.items() if kind in name), {'width': 16})
    model = create_model(name, num_classes=5, **options)
    shapes = convert.variable_shapes(model)
    monkeypatch.setattr(convert, 'variable_shapes', lambda *_: shapes)  # traced once
    variables = random_bits(shapes)
    for naming in convert.namings(model):
        state_dict = to_arrays(variables, model, naming=naming)
        assert_trees_equal(bits(from_torch(state_dict, model, naming=naming)), bits(variables))
