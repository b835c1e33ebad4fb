"""Published parameter counts of every network."""

import itertools
import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import pytest

from ssanet_jax import create_model
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.registry import NETWORKS, split_name
from ssanet_jax.weights.convert import variable_shapes
from tests.helpers import ROOT

GOLDEN = json.loads((ROOT / 'tests' / 'golden' / 'attention56.json').read_text())
CIFAR = {'stem': 'cifar'}
# Blocks per stage of the deeper networks of each family, whose parameters the slow tests count:
# He et al. 2015, table 1 and section 4.2, and 2016, section 4; Xie et al. 2017, table 1; Zagoruyko
# and Komodakis 2016, table 1; Huang et al. 2017, table 1; Wang et al. 2017, table 2, whose 1, 2 and
# 3 attention modules have 4 blocks each, after one.
DEEP = {
    'resnet34': (3, 4, 6, 3),
    'resnet101': (3, 4, 23, 3),
    'resnet152': (3, 8, 36, 3),
    'resnet32': (5, 5, 5),
    'resnet44': (7, 7, 7),
    'resnet56': (9, 9, 9),
    'resnet110': (18, 18, 18),
    'resnext101_32x8d': (3, 4, 23, 3),
    'resnext101_64x4d': (3, 4, 23, 3),
    'wide_resnet101_2': (3, 4, 23, 3),
    'preact_resnet34': (3, 4, 6, 3),
    'preact_resnet101': (3, 4, 23, 3),
    'preact_resnet152': (3, 8, 36, 3),
    'preact_resnet110': (18, 18, 18),
    'preact_resnet164': (18, 18, 18),
    'wide_resnet28_10': (4, 4, 4),
    'wide_resnet40_4': (6, 6, 6),
    'densenet161': (6, 12, 36, 24),
    'densenet169': (6, 12, 32, 32),
    'densenet201': (6, 12, 48, 32),
    'residual_attention92': (5, 9, 13, 3),
}

# Exact counts of reference implementations.
EXACT = [
    # torchvision 0.28, `num_params` of the weights
    ('resnet18', 1000, {}, 11_689_512),
    ('resnet34', 1000, {}, 21_797_672),
    ('resnet50', 1000, {}, 25_557_032),
    ('resnet101', 1000, {}, 44_549_160),
    ('resnet152', 1000, {}, 60_192_808),
    ('resnext50_32x4d', 1000, {}, 25_028_904),
    ('resnext101_32x8d', 1000, {}, 88_791_336),
    ('resnext101_64x4d', 1000, {}, 83_455_272),
    ('wide_resnet50_2', 1000, {}, 68_883_240),
    ('wide_resnet101_2', 1000, {}, 126_886_696),
    ('vgg11_bn', 1000, {}, 132_868_840),
    ('vgg13_bn', 1000, {}, 133_053_736),
    ('vgg16_bn', 1000, {}, 138_365_992),
    ('vgg19_bn', 1000, {}, 143_678_248),
    ('densenet121', 1000, {}, 7_978_856),
    ('densenet161', 1000, {}, 28_681_000),
    ('densenet169', 1000, {}, 14_149_480),
    ('densenet201', 1000, {}, 20_013_928),
    ('googlenet', 1000, {}, 6_624_904),
    ('mobilenet_v2', 1000, {}, 3_504_872),
    # timm 1.0.31: resnet50d, resnetv2_18 to _152, mobilenetv1_100
    ('resnet50d', 1000, {}, 25_576_264),
    ('preact_resnet18', 1000, {}, 11_687_720),
    ('preact_resnet34', 1000, {}, 21_795_880),
    ('preact_resnet50', 1000, {}, 25_549_352),
    ('preact_resnet101', 1000, {}, 44_541_480),
    ('preact_resnet152', 1000, {}, 60_185_128),
    ('mobilenet_v1', 1000, {}, 4_231_976),
    # timm: legacy_seresnet18 and _34, whose hidden layers are 4 and more wide as in the SE paper,
    # seresnet50 to 152, legacy_seresnext50_32x4d
    ('se_resnet18', 1000, {}, 11_778_592),
    ('se_resnet34', 1000, {}, 21_958_868),
    ('se_resnet50', 1000, {}, 28_088_024),
    ('se_resnet101', 1000, {}, 49_326_872),
    ('se_resnet152', 1000, {}, 66_821_848),
    ('se_resnext50_32x4d', 1000, {}, 27_559_896),
    # The SSANet authors' released code: SalientResNet50, g_SalientResNet50; and two parameters a
    # block (SSANet, section 3)
    ('ssa_resnet50', 1000, {}, 25_557_064),
    ('gssa_resnet50', 1000, {}, 25_557_976),
    ('ssa_resnet152', 1000, {}, 60_192_808 + 2 * 50),
    # kuangliu/pytorch-cifar: VGG16, DenseNet121
    ('vgg16_bn', 10, CIFAR, 14_728_266),
    ('densenet121', 10, CIFAR, 6_956_298),
    # The authors' Caffe definitions; the paper prints 31.9 M and 51.3 M
    ('residual_attention56', 1000, {}, GOLDEN['parameters']['Attention-56']),
    ('residual_attention92', 1000, {}, GOLDEN['parameters']['Attention-92']),
    # By hand from He et al. 2015, section 4.2, which prints no network of 6n + 2 layers with n < 3:
    # kernels, two parameters a channel of each BatchNorm, classifier
    ('resnet8', 10, {}, 432 + 4_608 + 13_824 + 55_296 + 2 * 240 + 650),
    ('resnet14', 10, {}, 432 + 9_216 + 32_256 + 129_024 + 2 * 464 + 650),
]

# In millions, to the digits that papers print.
PRINTED = [
    # He et al. 2015, table 6
    ('resnet20', 10, '0.27'),
    ('resnet32', 10, '0.46'),
    ('resnet44', 10, '0.66'),
    ('resnet56', 10, '0.85'),
    ('resnet110', 10, '1.7'),
    # Zagoruyko and Komodakis 2016, table 5
    ('preact_resnet110', 10, '1.7'),
    ('preact_resnet164', 10, '1.7'),
    ('wide_resnet16_8', 10, '11.0'),
    ('wide_resnet28_10', 10, '36.5'),
    ('wide_resnet40_4', 10, '8.9'),
    # Howard et al. 2017, table 8
    ('mobilenet_v1', 1000, '4.2'),
    # Hu et al. 2018: SE-MobileNet, SE-VGG-16
    ('se_mobilenet_v1', 1000, '4.7'),
    ('se_vgg16_bn', 1000, '139'),
    # Woo et al. 2018, table 4
    ('cbam_resnet50', 1000, '28.09'),
]


def count(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def published(name, num_classes):
    """Exact number of parameters, or the digits printed in a paper."""
    exact = [n for other, k, options, n in EXACT if (other, k, options) == (name, num_classes, {})]
    printed = [text for other, k, text in PRINTED if (other, k) == (name, num_classes)]
    return exact + printed


def assert_published(parameters, expected):
    if isinstance(expected, int):
        assert parameters == expected
    else:
        digits = len(expected.partition('.')[2])
        assert f'{parameters / 1e6:.{digits}f}' == expected


def marks(name):
    return pytest.mark.slow if split_name(name)[1] in DEEP else ()


@pytest.mark.parametrize(
    ('kind', 'name'),
    [
        pytest.param(kind, name, marks=marks(name))
        for kind, name in zip(itertools.cycle(sorted(ATTENTION)), sorted(NETWORKS), strict=False)
    ],
)
def test_each_network_has_the_published_parameters_and_those_of_its_attention(kind, name):
    """Shapes only, at the network's original size."""
    num_classes = next(k for k in (10, 1000) if published(name, k))
    model = create_model(f'{kind}_{name}', num_classes=num_classes)
    size = 32 if model.stem == 'cifar' else 224
    logits, variables = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, train=False),
        jnp.zeros((2, size, size, 3)),
    )
    assert logits.shape == (2, num_classes)
    flat = flax.traverse_util.flatten_dict(variables['params'])
    slots = {path[: path.index(kind)] for path in flat if kind in path}
    if kind not in ('ge', 'simam'):  # which have no parameters
        assert len(slots) == sum(model.blocks)
    plain = count([leaf for path, leaf in flat.items() if kind not in path])
    for expected in published(name, num_classes):
        assert_published(plain, expected)


@pytest.mark.parametrize(
    ('name', 'num_classes', 'options', 'expected'),
    [
        pytest.param(*row, marks=marks(row[0]))
        for row in [*EXACT, *((name, k, {}, text) for name, k, text in PRINTED)]
        if row[0] not in NETWORKS or row[2]
    ],
)
def test_other_models_have_the_published_parameters(name, num_classes, options, expected):
    model = create_model(name, num_classes=num_classes, **options)
    assert_published(count(variable_shapes(model)['params']), expected)


@pytest.mark.parametrize('name', DEEP)
def test_deep_networks_have_the_published_stages(name):
    assert create_model(name, num_classes=10).blocks == DEEP[name]


def test_every_network_is_among_those():
    assert {name for name, *_ in EXACT + PRINTED} >= set(NETWORKS)
