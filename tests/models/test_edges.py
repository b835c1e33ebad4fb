"""Networks without a last layer, empty batches, and float32 under JAX_ENABLE_X64."""

from functools import partial

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssanet_jax import create_model, weights
from ssanet_jax.analysis.jaxpr_macs import jaxprs_in_params
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.analysis.saliency import grad_cam
from ssanet_jax.attention import ATTENTION
from ssanet_jax.models.batch_norm_folding import fold_batch_norm
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.metrics import Metrics
from tests.helpers import enable_x64, quick_jit
from tests.models.test_network import ONCE, init_quickly, small

QUICK = ('resnet18', 'resnet50', 'vgg16_bn', 'mobilenet_v1')
PAIRS = [
    pytest.param(name, kind, marks=() if name in QUICK else pytest.mark.slow)
    for kind, name in sorted(ONCE)
]


def shapes_of(model, n=1):
    return jax.eval_shape(partial(model.init, train=False), jax.random.key(0), images(n))


def ones(tree):
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), tree)


def images(n=2, size=16):
    return jnp.asarray(np.random.default_rng(0).normal(size=(n, size, size, 3)), jnp.float32)


@pytest.mark.parametrize(('name', 'kind'), PAIRS)
def test_without_classes_the_result_is_the_input_of_the_last_layer(name, kind):
    """Shapes, for all networks; the values are tested for two below."""
    with_head, without = (shapes_of(small(name, kind).clone(num_classes=n)) for n in (5, 0))
    model = small(name, kind).clone(num_classes=0)
    features = jax.eval_shape(partial(model.apply, train=False), without, images())
    assert features.dtype == jnp.float32
    assert features.shape == (2, with_head['params'].pop('fc')['kernel'].shape[0])
    assert jax.tree.structure(with_head['params']) == jax.tree.structure(without['params'])


@pytest.mark.parametrize(
    'options',
    [{}, pytest.param({'stem': 'imagenet'}, marks=pytest.mark.slow)],
    ids=['mean', 'dense layers'],
)
def test_the_last_layer_of_features_gives_the_logits(options):
    model = create_model(
        'vgg11_bn',
        num_classes=5,
        **{'stem': 'cifar', 'stage_sizes': (1,), 'widths': (8,), 'hidden': 16, **options},
    )
    variables = init_quickly(model)
    logits = quick_jit(partial(model.apply, train=False))(variables, images())
    head = variables['params'].pop('fc')
    features = quick_jit(partial(model.clone(num_classes=0).apply, train=False))(
        variables, images()
    )
    found = features @ head['kernel'] + head['bias']
    np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-6)


def test_a_network_without_classes_can_be_folded_counted_and_converted():
    with_head, model = (small('resnet18', 'ssa').clone(num_classes=n) for n in (5, 0))
    variables = ones(shapes_of(model))
    folded, folded_variables = fold_batch_norm(model, variables)
    features = jax.eval_shape(partial(folded.apply, train=False), folded_variables, images())
    assert features.shape == (2, 64)
    assert model_cost(with_head, 16).macs - model_cost(model, 16).macs == 5 * 64
    arrays = weights.to_arrays(ones(shapes_of(with_head)), with_head)
    found = weights.from_torch(arrays, model, image_size=16)  # the classifier is left out
    assert 'fc' not in found['params']
    with pytest.raises(ValueError, match='explains classes, and the network has none'):
        grad_cam(model, variables, images(), [0, 0])


def test_a_negative_number_of_classes_is_refused():
    with pytest.raises(ValueError, match=r'ResNet\(num_classes=-1\) must be 0, for features, or'):
        shapes_of(small('resnet18').clone(num_classes=-1))


@pytest.mark.parametrize(('name', 'kind'), PAIRS)
def test_an_empty_batch_gives_an_empty_result_and_cannot_train(name, kind):
    model = small(name, kind)
    shapes = shapes_of(model, 0)
    assert jax.tree.leaves(shapes) == jax.tree.leaves(shapes_of(model, 1))
    logits = jax.eval_shape(partial(model.apply, train=False), shapes, images(0))
    assert logits.shape == (0, 5)
    with pytest.raises(ValueError, match=r'no statistics of an empty batch, of shape \(0, 16'):
        jax.eval_shape(partial(model.apply, train=True, mutable=['batch_stats']), shapes, images(0))


@pytest.mark.parametrize('tail', ['folded', 'plain'])
@pytest.mark.slow
def test_the_tail_of_an_empty_batch_is_empty(tail):
    model = small('resnet50', 'ssa', tail=tail)
    variables = init_quickly(model)
    assert model.apply(variables, images(0), train=False).shape == (0, 5)


@pytest.mark.parametrize('kind', ATTENTION)
def test_a_block_of_an_empty_batch_and_its_gradient_are_empty(kind):
    block, x = ATTENTION[kind](), jnp.ones((0, 4, 4, 32))
    shapes = jax.eval_shape(partial(block.init, train=False), jax.random.key(0), x)

    def apply_and_differentiate(variables, x):
        y, pullback = jax.vjp(lambda x: block.apply(variables, x, train=False), x)
        return y, pullback(y)[0]

    found = jax.eval_shape(apply_and_differentiate, shapes, x)
    assert [leaf.shape for leaf in found] == [x.shape, x.shape]
    assert block.apply(ones(shapes), x, train=False).shape == x.shape


def test_the_evaluation_of_an_empty_batch_counts_nothing(digits):
    setup = trainer_setup.build(digits, num_classes=10, num_train_examples=64)
    batch = {
        'image': np.zeros((0, 8, 8, 3), np.uint8),
        'label': np.zeros(0, np.int32),
        'mask': np.zeros(0, bool),
    }
    shape = jax.eval_shape(setup.eval_step, jax.eval_shape(setup.init), batch, Metrics.zero())
    assert shape.sums['loss'].shape == ()
    logits = jnp.zeros((0, 10))
    total = Metrics.of(logits, batch['label'], jnp.zeros(0), batch['mask'])
    assert (float(total.loss), int(total.num_examples)) == (0, 0)


def float64_arrays(jaxpr):
    """Arrays with axes, computed in float64 anywhere in a program."""
    found = []
    for equation in jaxpr.eqns:
        found += [v.aval for v in equation.outvars if v.aval.shape and v.aval.dtype == np.float64]
        for inner in jaxprs_in_params(equation.params):
            found += float64_arrays(inner)
    return found


@pytest.mark.parametrize(
    ('name', 'changes'),
    [
        ('ssa_resnet8', {}),
        ('ssa_resnet8', {'dtype': 'bfloat16', 'optimizer.name': 'adamw', 'max_bad_steps': 2}),
        *(
            pytest.param(f'{kind}_resnet18', {'label_smoothing': 0.1}, marks=pytest.mark.slow)
            for kind in ATTENTION
        ),
        pytest.param('ssa_resnet50', {}, marks=pytest.mark.slow),
        pytest.param('ssa_densenet121', {'model.stem': 'cifar'}, marks=pytest.mark.slow),
        pytest.param('ssa_residual_attention56', {'model.stem': 'cifar'}, marks=pytest.mark.slow),
    ],
)
def test_state_and_computation_stay_in_float32_under_x64(digits, name, changes):
    digits.model.name = name
    digits.update_from_flattened_dict(changes)
    with enable_x64(True):
        setup = trainer_setup.build(digits, num_classes=10, num_train_examples=64)
        state, total = jax.eval_shape(setup.init), jax.eval_shape(setup.zero_metrics)
        batch = {
            'image': jax.ShapeDtypeStruct((16, 8, 8, 3), np.uint8),
            'label': jax.ShapeDtypeStruct((16,), np.int32),
            'mask': jax.ShapeDtypeStruct((16,), bool),
        }
        after = jax.eval_shape(setup.train_step, state, batch, total)
        programs = [step.trace(state, batch, total) for step in (setup.train_step, setup.eval_step)]
    for tree in ((state, total), after):
        for path, leaf in flax.traverse_util.flatten_dict(_as_dict(tree)).items():
            assert leaf.dtype in (np.float32, np.int32, bool), path
    for program in programs:
        assert not float64_arrays(program.jaxpr.jaxpr)


def _as_dict(tree):
    return {
        (jax.tree_util.keystr(path),): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
