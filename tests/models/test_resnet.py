import json

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.state import TrainState
from tests.golden import rule
from tests.helpers import ROOT, float64, from_torch_layout, mesh_of, to_torch_layout, torch_name


def shapes_of(model, size=32):
    image = jnp.ones((1, size, size, 3))
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), image)


def count(tree):
    return sum(p.size for p in jax.tree.leaves(tree))


# torchvision's documentation; timm for SE; He et al. 2015, table 6, to the digits given there.
@pytest.mark.parametrize(
    ('name', 'num_classes', 'expected'),
    [
        ('resnet18', 1000, 11_689_512),
        ('resnet34', 1000, 21_797_672),
        ('resnet50', 1000, 25_557_032),
        ('resnet101', 1000, 44_549_160),
        ('resnet152', 1000, 60_192_808),
        ('ssa_resnet50', 1000, 25_557_032 + 2 * 16),
        ('ssa_resnet152', 1000, 60_192_808 + 2 * 50),
        ('se_resnet50', 1000, 28_088_024),
        ('se_resnet18', 1000, 11_778_592),
        ('resnet20', 10, 269_722),
        ('resnet32', 10, 464_154),
        ('resnet44', 10, 658_586),
        ('resnet56', 10, 853_018),
        ('resnet110', 10, 1_727_962),
    ],
)
def test_parameter_counts_are_the_published_ones(name, num_classes, expected):
    assert count(shapes_of(create_model(name, num_classes=num_classes))['params']) == expected


def test_cifar_stem_keeps_the_image_size():
    """A 3x3 kernel in place of 7x7, and no parameters anywhere else."""
    imagenet = count(shapes_of(create_model('resnet50', num_classes=10))['params'])
    cifar = count(shapes_of(create_model('resnet50', num_classes=10, stem='cifar'))['params'])
    assert imagenet - cifar == 64 * 3 * (7 * 7 - 3 * 3)
    model = create_model('resnet50', num_classes=10, stem='cifar')
    _, captured = jax.eval_shape(
        lambda v: model.apply(v, jnp.ones((1, 32, 32, 3)), train=False, capture_intermediates=True),
        shapes_of(model),
    )
    final = captured['intermediates']['layer4_2']['__call__'][-1]
    assert final.shape == (1, 4, 4, 2048)


def golden_state(model, size):
    """Variables of `model` filled by the rule that filled torch's, in float64."""

    def fill(path, leaf):
        name = torch_name(path)
        shape = to_torch_layout(np.empty(leaf.shape)).shape
        if '.se.' in name and len(shape) == 2:
            shape = (*shape, 1, 1)  # timm's are 1x1 convolutions
        return from_torch_layout(rule.weight(name, shape), name, leaf.shape)

    shapes = shapes_of(model, size)
    filled = {}
    for collection, tree in shapes.items():
        flat = flax.traverse_util.flatten_dict(tree)
        filled[collection] = flax.traverse_util.unflatten_dict(
            {path: fill(path, leaf) for path, leaf in flat.items()}
        )
    return filled


def named_digests(tree):
    flat = flax.traverse_util.flatten_dict(tree)
    return {
        torch_name(path): rule.digest(to_torch_layout(np.asarray(v))) for path, v in flat.items()
    }


@pytest.mark.parametrize(
    ('name', 'golden'), [('resnet50', 'resnet50'), ('se_resnet50', 'seresnet50')]
)
def test_logits_and_a_training_step_equal_those_of_torch(name, golden):
    expected = json.loads((ROOT / 'tests' / 'golden' / f'{golden}.json').read_text())
    with float64():
        model = create_model(name, num_classes=rule.CLASSES, dtype=jnp.float64)
        variables = golden_state(model, rule.SIZE)
        logits = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, rule.images())
        np.testing.assert_allclose(logits, expected['logits'], rtol=1e-9)

        tx = optax.sgd(1.0)  # so that the parameters move by the gradient
        step = parallel.parallel_train_step(
            lambda state, batch: steps.train_step(
                state, batch, model=model, tx=tx, loss=cross_entropy, preprocess=lambda x: x
            ),
            mesh_of(1),
        )
        params, stats = variables['params'], variables['batch_stats']
        state = jax.tree.map(jnp.array, TrainState(0, params, stats, tx.init(params)))
        batch = {'image': rule.images(), 'label': rule.labels(), 'mask': np.ones(rule.BATCH, bool)}
        state, metrics = step(state, batch, Metrics.zero())

    np.testing.assert_allclose(metrics.loss / rule.BATCH, expected['loss'], rtol=1e-6)
    gradients = jax.tree.map(lambda old, new: old - np.asarray(new), params, state.params)
    compare(named_digests(gradients), expected['gradients'])
    compare(named_digests(torch_variances(stats, state.batch_stats)), expected['running'])


def torch_variances(before, after):
    """Torch's running variance takes the unbiased batch variance, flax's the biased one."""
    flat, old = (flax.traverse_util.flatten_dict(t) for t in (after, before))
    pixels = {'bn1': 32**2, 'layer1': 16**2, 'layer2': 8**2, 'layer3': 4**2, 'layer4': 2**2}
    result = {}
    for path, value in flat.items():
        value, previous = np.asarray(value), np.asarray(old[path])
        if path[-1] == 'var':
            n = rule.BATCH * pixels[path[0].partition('_')[0]]
            if path[0].endswith('_0') and path[1] == 'bn1' and path[0] != 'layer1_0':
                n *= 4  # v1.5 halves the size only after this one
            value = previous * 0.9 + (value - previous * 0.9) * n / (n - 1)
        result[path] = value
    return flax.traverse_util.unflatten_dict(result)


def compare(actual, expected):
    assert actual.keys() == expected.keys()
    for name in expected:
        scale = max(abs(v) for v in expected[name])
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=1e-6, atol=1e-9 * scale, err_msg=name
        )


def test_zero_init_residual_starts_every_block_as_the_identity():
    model = create_model('resnet20', num_classes=10, zero_init_residual=True)
    variables = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)), train=False)
    scales = flax.traverse_util.flatten_dict(variables['params'])
    last = {path[0]: v for path, v in scales.items() if path[1:] == ('bn2', 'scale')}
    assert len(last) == 9
    assert all((v == 0).all() for v in last.values())
    assert all((v == 1).all() for path, v in scales.items() if path[1:] == ('bn1', 'scale'))


@pytest.mark.parametrize(
    'name', ['resnet18', 'ssa_resnet18', 'se_resnet18', 'ssa_resnet20', 'ssa_resnet50']
)
def test_every_parameter_gets_a_gradient(name):
    model = create_model(name, num_classes=10, stem='cifar')
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 3)).astype(np.float32)
    variables = model.init(jax.random.key(0), x, train=False)

    @jax.jit
    def gradients(params):
        def loss(params):
            logits, _ = model.apply(
                {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
            )
            return cross_entropy(logits, jnp.arange(4)).sum()

        return jax.grad(loss)(params)

    for path, gradient in flax.traverse_util.flatten_dict(gradients(variables['params'])).items():
        assert np.isfinite(gradient).all(), path
        assert np.abs(gradient).max() > 0, path


def test_bfloat16_computes_in_bfloat16_and_returns_float32_logits():
    model = create_model('ssa_resnet20', num_classes=10, dtype=jnp.bfloat16)
    x = jnp.ones((2, 16, 16, 3))
    variables = model.init(jax.random.key(0), x, train=False)
    assert {v.dtype for v in jax.tree.leaves(variables)} == {jnp.dtype('float32')}
    logits, extra = model.apply(variables, x, train=False, capture_intermediates=True)
    assert logits.dtype == jnp.float32
    block = extra['intermediates']['layer2_0']['__call__'][0]
    assert block.dtype == jnp.bfloat16


def test_attention_sits_after_the_last_batch_norm_and_before_the_sum():
    seen = []

    def spy(name=None):
        def block(x, *, train):
            seen.append(x)
            return jnp.zeros_like(x)

        return block

    model = create_model('resnet20', num_classes=10, attention=spy)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    seen.clear()
    _, extra = model.apply(variables, x, train=False, capture_intermediates=True)
    maps = extra['intermediates']
    np.testing.assert_array_equal(seen[0], maps['layer1_0']['bn2']['__call__'][0])
    stem = jax.nn.relu(maps['bn1']['__call__'][0])
    np.testing.assert_array_equal(maps['layer1_0']['__call__'][0], stem)


def test_option_a_shortcut_drops_pixels_and_pads_channels():
    model = create_model('resnet20', num_classes=10, attention=lambda: lambda y, train: y * 0)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 3)), jnp.float32)
    variables = model.init(jax.random.key(0), x, train=False)
    _, extra = model.apply(variables, x, train=False, capture_intermediates=True)
    maps = {
        name: value['__call__'][0]
        for name, value in extra['intermediates'].items()
        if name[:5] == 'layer'
    }
    before, after = maps['layer1_2'], maps['layer2_0']
    np.testing.assert_array_equal(after[..., :16], before[:, ::2, ::2])
    assert (after[..., 16:] == 0).all()
    assert after.shape == (1, 4, 4, 32)


def test_an_image_without_its_batch_axis_is_refused():
    model = create_model('resnet20', num_classes=10)
    with pytest.raises(ValueError, match='ResNet expects a feature map'):
        model.init(jax.random.key(0), jnp.ones((8, 8, 3)), train=False)
