import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from ssanet_jax import SSABlock, create_model
from ssanet_jax.analysis.macs import count_tails, layer_costs, model_cost, total_cost
from ssanet_jax.attention import ATTENTION, CBAMBlock, ECABlock, SEBlock, SimAMBlock
from ssanet_jax.models import googlenet, mobilenet

# Pixels times channels of the maps at the ends of ResNet-50's blocks, and their channels alone.
BLOCKS = [(56, 256)] * 3 + [(28, 512)] * 4 + [(14, 1024)] * 6 + [(7, 2048)] * 3
VALUES = sum(size**2 * channels for size, channels in BLOCKS)
PIXELS = sum(size**2 for size, _ in BLOCKS)
CHANNELS = sum(channels for _, channels in BLOCKS)


@functools.cache
def cost(name, variant):
    return model_cost(create_model(name, num_classes=1000, variant=variant), 224)


# The SSANet paper's table is that of v1; torchvision publishes 4.09 G for its v1.5, and the
# figures of the other networks with their weights.
@pytest.mark.parametrize(
    ('name', 'variant', 'billions', 'parameters'),
    [
        ('resnet50', 'v1', 3.86, 25_557_032),
        ('ssa_resnet50', 'v1', 3.87, 25_557_064),
        ('se_resnet50', 'v1', 3.87, 28_088_024),
        ('resnet50', None, 4.09, 25_557_032),
        ('resnext50_32x4d', None, 4.23, 25_028_904),
        ('googlenet', None, 1.50, 6_624_904),
        ('densenet121', None, 2.83, 7_978_856),
        ('mobilenet_v2', None, 0.30, 3_504_872),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ('resnet18', None, 1.81, 11_689_512),
                ('resnet34', None, 3.66, 21_797_672),
                ('resnet101', None, 7.80, 44_549_160),
                ('resnet152', None, 11.51, 60_192_808),
                ('vgg16_bn', None, 15.47, 138_365_992),
                ('wide_resnet50_2', None, 11.40, 68_883_240),
            ]
        ),
    ],
)
def test_sizes_are_the_published_ones(name, variant, billions, parameters):
    found = cost(name, variant)
    assert found.macs / 1e9 == pytest.approx(billions, abs=0.0051)
    assert found.parameters == parameters


def test_a_residual_attention_network_has_its_authors_macs():
    """Counted from their Caffe definition, where interpolation is not a matrix product."""
    layers = layer_costs(create_model('residual_attention56', num_classes=1000), 224)
    assert total_cost(layers).parameters == 31_810_728
    assert sum(x.matmul_macs for x in layers if x.kind in ('Conv', 'Dense')) == 6_270_836_736


def test_ssa_costs_two_macs_per_value():
    """Saliency and gate, plus per channel the mean, and per pixel BatchNorm and gate scale."""
    plain, attended = cost('resnet50', 'v1'), cost('ssa_resnet50', 'v1')
    small = CHANNELS + 2 * PIXELS
    attention_macs = attended.attention_matmul_macs + attended.attention_elementwise
    assert attention_macs == 2 * VALUES + small
    assert small < 0.01 * VALUES
    assert attended.macs - plain.macs == attention_macs
    assert attended.matmul_macs == plain.matmul_macs == plain.macs
    assert plain.attention_matmul_macs == plain.attention_elementwise == 0


def test_se_costs_its_means_its_two_products_and_its_gate():
    found = cost('se_resnet50', 'v1')
    assert found.attention_matmul_macs == sum(2 * c * c // 16 for _, c in BLOCKS)
    assert found.attention_elementwise == VALUES + CHANNELS


# For a map of 4x4 pixels, P, and C channels, from the formulas of the blocks' docstrings. A mean
# has a division; BatchNorm has a product with its factor.
P, C = 16, 32
CASES = [
    # mean, z * x, BatchNorm, 1 * sigmoid, gate * x
    (SSABlock(), 0, C + P * C + P + P + P * C),
    (SSABlock(num_groups=4), 0, C + P * C + 4 * P + 4 * P + P * C),
    # the mean over channels is a division for each pixel
    (SSABlock(squeeze='max', combine='mean'), 0, P * C + P + P + P + P * C),
    # mean; square; sum / (P - 1); 4 (v + lambda); d / that; gate * x
    (SimAMBlock(), 0, C + P * C + C + C + P * C + P * C),
    # mean over pixels, gate * x; mean over channels, BatchNorm, gate * u
    (CBAMBlock(), 2 * 2 * C * C // 16 + P * 7 * 7 * 2, C + P * C + P + P + P * C),
    (SEBlock(ratio=4), 2 * C * C // 4, C + P * C),
    (ECABlock(kernel_size=5), 5 * C, C + P * C),
]


class OnMap(nn.Module):
    """A block on a map of C channels, copies of the image's first one."""

    block: nn.Module

    def __call__(self, x, train):
        return self.block(jnp.broadcast_to(x[..., :1], (*x.shape[:-1], C)), train=train)


@pytest.mark.parametrize(('block', 'products', 'elementwise'), CASES)
def test_blocks_cost_what_their_formulas_say(block, products, elementwise):
    found = model_cost(OnMap(block), 4)
    assert (found.matmul_macs, found.attention_matmul_macs) == (products, products)
    assert found.attention_elementwise == elementwise


SMALL = {'stage_sizes': (1, 1, 1, 1)}


# Every attention and every family of networks once.
@pytest.mark.parametrize(
    ('name', 'options'),
    [
        ('ca_preact_resnet50', SMALL),
        ('cbam_resnext50_32x4d', SMALL),
        ('eca_mobilenet_v2', {'stages': mobilenet.STAGES[:3]}),
        ('ge_vgg11_bn', {}),
        ('gssa_resnet50', SMALL),
        ('sa_wide_resnet16_8', {}),
        ('scse_densenet121', SMALL),
        ('se_mobilenet_v1', {'stage_sizes': (1, 1)}),
        ('simam_googlenet', {'stages': googlenet.STAGES[:1]}),
        ('ssa_residual_attention56', {'modules': (1,)}),
        ('sse_resnet20', {}),
    ],
)
def test_layers_add_up(name, options):
    model = create_model(name, num_classes=10, **options)
    layers = layer_costs(model, 64)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.ones((1, 64, 64, 3)), train=False)
    )
    assert sum(x.parameters for x in layers) == sum(
        p.size for p in jax.tree.leaves(shapes['params'])
    )
    assert len({layer.path for layer in layers}) == len(layers)
    kind = name.partition('_')[0]
    for layer in layers:
        assert layer.attention == (kind in layer.path.split('/'))
        assert layer.attention or not layer.elementwise
        if layer.kind == 'Conv' and not layer.attention and 'vgg' not in name:  # without biases
            assert layer.matmul_macs == layer.parameters * math.prod(layer.outputs[0][1:3])
    assert sum(x.elementwise for x in layers) > 0


def test_the_cases_cover_every_attention():
    marks = test_layers_add_up.pytestmark[0].args[1]
    assert {name.partition('_')[0] for name, _ in marks} == set(ATTENTION)


def test_layers_come_in_the_order_of_their_calls_and_make_the_total():
    model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(1,))
    layers = layer_costs(model, 32)
    assert [(layer.path, layer.kind) for layer in layers] == [
        ('', 'ResNet'),
        ('conv1', 'Conv'),
        ('bn1', 'BatchNorm'),
        ('layer1_0', 'BasicBlock'),
        ('layer1_0/conv1', 'Conv'),
        ('layer1_0/bn1', 'BatchNorm'),
        ('layer1_0/conv2', 'Conv'),
        ('layer1_0/bn2', 'BatchNorm'),
        ('layer1_0/ssa', 'SSABlock'),
        ('layer1_0/ssa/bn', 'BatchNorm'),
        ('fc', 'Dense'),
    ]
    assert total_cost(layers) == model_cost(model, 32)
    ssa = layers[8]
    assert ssa.outputs == ((1, 32, 32, 16),)


def test_a_custom_attention_is_counted():
    class Doubled(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            return x * jnp.mean(x, axis=(1, 2), keepdims=True)

    model = create_model(
        'resnet20', num_classes=10, attention=functools.partial(Doubled, name='mine')
    )
    maps = [(32, 16)] * 3 + [(16, 32)] * 3 + [(8, 64)] * 3
    assert model_cost(model, 32).attention_elementwise == sum(n * n * c + c for n, c in maps)


def test_a_module_called_twice_counts_both_calls_and_its_parameters_once():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            dense = nn.Dense(3, use_bias=False)
            return dense(dense(x))

    network, dense = layer_costs(Net(), 2)
    assert (network.parameters, dense.parameters) == (0, 9)
    assert (network.matmul_macs, dense.matmul_macs) == (0, 2 * 4 * 9)


@pytest.mark.parametrize(
    ('name', 'batch_size', 'forms'),
    [
        ('ssa_resnet50', 32, {'folded': 16, 'plain': 0}),
        ('resnet50', 32, {'folded': 13, 'plain': 3}),  # not where images have 7x7 pixels
        ('se_resnet50', 32, {'folded': 13, 'plain': 3}),
        ('cbam_resnet50', 32, {'folded': 0, 'plain': 16}),
        ('ssa_resnet20', 32, {'folded': 0, 'plain': 9}),
    ],
)
def test_tails_are_counted_by_form(name, batch_size, forms):
    assert count_tails(create_model(name, num_classes=10), 224, batch_size) == forms
