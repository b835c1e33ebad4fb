import flax.linen as nn
import jax
import pytest

from ssanet_jax import create_model
from ssanet_jax.analysis.cost import count_tails, model_cost


def cost(name, size=224, **options):
    return model_cost(create_model(name, num_classes=1000, **options), size)


# The SSANet paper's table is that of v1; torchvision publishes 4.09 G for its v1.5, and
# 1.81, 3.66, 7.80 and 11.51 G for ResNet-18, -34, -101 and -152.
@pytest.mark.parametrize(
    ('name', 'options', 'billions'),
    [
        ('resnet50', {'variant': 'v1'}, 3.86),
        ('ssa_resnet50', {'variant': 'v1'}, 3.87),
        ('se_resnet50', {'variant': 'v1'}, 3.87),
        ('resnet50', {}, 4.09),
        ('resnet18', {}, 1.81),
        ('resnet34', {}, 3.66),
        ('resnet101', {}, 7.80),
        ('resnet152', {}, 11.51),
    ],
)
def test_multiply_adds_are_the_published_ones(name, options, billions):
    assert cost(name, **options).multiply_adds / 1e9 == pytest.approx(billions, abs=0.0051)


def test_ssa_costs_two_multiply_adds_a_value():
    """Saliency and gate, for every value of the 16 blocks' outputs; its BatchNorm is little."""
    values = 3 * 56**2 * 256 + 4 * 28**2 * 512 + 6 * 14**2 * 1024 + 3 * 7**2 * 2048
    plain, attended = cost('resnet50'), cost('ssa_resnet50')
    assert attended.attention_multiply_adds == pytest.approx(2 * values, rel=0.01)
    assert attended.multiply_adds - plain.multiply_adds == attended.attention_multiply_adds
    assert plain.attention_multiply_adds == 0


def test_se_costs_its_two_products_and_its_gate():
    values = 3 * 56**2 * 256 + 4 * 28**2 * 512 + 6 * 14**2 * 1024 + 3 * 7**2 * 2048
    products = sum(n * 2 * c * c // 16 for n, c in ((3, 256), (4, 512), (6, 1024), (3, 2048)))
    assert cost('se_resnet50').attention_multiply_adds == values + products


def test_nested_programs_are_counted():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, *, train):
            x = nn.Conv(5, (3, 3), padding=1, use_bias=False)(x)
            return jax.jit(lambda y: y @ y.reshape(-1, 5).T)(x)

    found = model_cost(Net(), 4)
    assert found == (3 * 3 * 3 * 5, 16 * 3 * 3 * 3 * 5 + 16 * 5 * 16, 0)


@pytest.mark.parametrize(
    ('name', 'batch_size', 'forms'),
    [
        ('ssa_resnet50', 32, {'folded': 16, 'plain': 0}),
        ('resnet50', 32, {'folded': 13, 'plain': 3}),  # not where images have 7x7 pixels
        ('se_resnet50', 32, {'folded': 0, 'plain': 16}),
        ('ssa_resnet20', 32, {'folded': 0, 'plain': 9}),
    ],
)
def test_tails_are_counted_by_form(name, batch_size, forms):
    assert count_tails(create_model(name, num_classes=10), 224, batch_size) == forms
