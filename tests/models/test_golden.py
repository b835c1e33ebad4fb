"""Networks against reference implementations; see tests/golden/make_torch.py, make_caffe.py."""

import json
from functools import partial

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssanet_jax import create_model, layers
from ssanet_jax.models.residual_attention import ResidualAttentionNetwork
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.steps import TrainState
from ssanet_jax.weights import convert, from_torch, to_arrays
from tests.golden import rule
from tests.helpers import ROOT, float64, mesh_of, quick_jit, quickly
from tests.models import caffe_names

SMALL = {'stage_sizes': (1, 2, 1, 1)}
VGG = {'hidden': 64, 'dropout': 0.0}
RELEASED = {'attention_options': {'combine': 'mean'}}
CIFAR = {'stem': 'cifar'}
# Ours by the names of the files, with the naming of theirs.
CASES = {
    'resnet50': ('resnet50', 'torchvision', {}),
    'resnext17_32x4d': ('resnext50_32x4d', 'torchvision', SMALL),
    'resnext50_32x4d': ('resnext50_32x4d', 'torchvision', {}),
    'wide_resnet17_2': ('wide_resnet50_2', 'torchvision', SMALL),
    'wide_resnet50_2': ('wide_resnet50_2', 'torchvision', {}),
    'vgg11_bn_narrow': ('vgg11_bn', 'torchvision', VGG),
    'vgg16_bn_narrow': ('vgg16_bn', 'torchvision', VGG),
    'densenet21': ('densenet121', 'torchvision', {'stage_sizes': (2, 2, 2, 2)}),
    'densenet121': ('densenet121', 'torchvision', {}),
    'googlenet': ('googlenet', 'torchvision', {'dropout': 0.0}),
    'mobilenet_v2': ('mobilenet_v2', 'torchvision', {'dropout': 0.0}),
    'resnet17d': ('resnet50d', 'timm', SMALL | {'stochastic_depth': 0.7}),
    'seresnet17': ('se_resnet50', 'timm', SMALL),
    'seresnet50': ('se_resnet50', 'timm', {}),
    'ecaresnet17': ('eca_resnet50', 'timm', SMALL),
    'cbamresnet17': ('cbam_resnet50', 'timm', SMALL | {'attention_options': {'mlp_bias': False}}),
    'resnetv2_17': ('preact_resnet50', 'timm', SMALL),
    'resnetv2_18': ('preact_resnet18', 'timm', {}),
    'resnetv2_50': ('preact_resnet50', 'timm', {}),
    'mobilenetv1_100': ('mobilenet_v1', 'timm', {}),
    'mobilenetv2_100': ('mobilenet_v2', 'timm', {'dropout': 0.0}),
    'ssanet17': ('ssa_resnet50', 'ssanet', SMALL | RELEASED),
    'ssanet50': ('ssa_resnet50', 'ssanet', RELEASED),
    'gssanet17': ('gssa_resnet50', 'ssanet', SMALL | RELEASED),
    'gssanet50': ('gssa_resnet50', 'ssanet', RELEASED),
    'cifar_resnet18': ('resnet18', 'ssanet_cifar', CIFAR),
    'cifar_vgg11': ('vgg11_bn', 'ssanet_cifar', CIFAR | {'dropout': 0.0}),
    'attention56': ('residual_attention56', 'caffe', {}),
}
EXPECTED = {
    case: json.loads((ROOT / 'tests' / 'golden' / f'{case}.json').read_text()) for case in CASES
}
# What is compared without the mark slow: training steps of a small one of every kind, whose
# gradients take longest, and the logits of these others.
QUICK_STEPS = ('densenet21', 'resnet17d', 'ssanet17')
QUICK_LOGITS = (
    'resnetv2_17',
    'cifar_resnet18',
    'resnext17_32x4d',
    'wide_resnet17_2',
    'vgg11_bn_narrow',
    'googlenet',
    'mobilenet_v2',
    'seresnet17',
    'resnetv2_18',
    'mobilenetv1_100',
    'gssanet17',
    'cifar_vgg11',
)


def marked(cases, quick):
    return [
        pytest.param(case, marks=() if case in quick else pytest.mark.slow, id=case)
        for case in cases
    ]


class Golden:
    """Our network of a case, to run in float64, and its variables by rule.py."""

    def __init__(self, case):
        name, self.naming, options = CASES[case]
        plain = create_model(name, num_classes=rule.CLASSES, **options)
        self.model = plain.clone(dtype=jnp.float64)
        self.size = rule.size(case)
        shapes = convert.variable_shapes(plain, self.size)
        empty = jax.tree.map(lambda leaf: np.broadcast_to(np.int8(0), leaf.shape), shapes)
        state_dict = {name: rule.weight(name, a.shape) for name, a in self.named(empty).items()}
        self.variables = from_torch(state_dict, plain, image_size=self.size, naming=self.naming)

    def named(self, tree):
        """Arrays under the names and in the layout of the reference."""
        arrays = to_arrays(tree, self.model, naming=self.naming)
        return {n: a for n, a in arrays.items() if not n.endswith('num_batches_tracked')}


@pytest.fixture
def golden(monkeypatch):
    """Makes a `Golden`."""
    # It would round to float32.
    monkeypatch.setattr(convert, 'to_numpy', lambda values, name: np.asarray(values))
    # Stochastic depth drops the examples that it drops in the reference.
    monkeypatch.setattr(jax.random, 'bernoulli', lambda key, p, shape: jnp.array(rule.kept(p)))
    caffe = {'caffe': caffe_names.NAMING}
    monkeypatch.setattr(ResidualAttentionNetwork, 'state_dict_rules', lambda self: caffe)
    return Golden


@pytest.mark.parametrize(
    'case', marked([case for case in CASES if case not in QUICK_STEPS], QUICK_LOGITS)
)
def test_logits_equal_those_of_the_reference(case, golden):
    ours = golden(case)
    with float64():
        apply = quick_jit(partial(ours.model.apply, train=False))
        logits = apply(ours.variables, rule.images(ours.size))
    np.testing.assert_allclose(logits, EXPECTED[case]['logits'], rtol=1e-8)


# Level 0, at which maxima over channels are rounded in two ways, gave CBAM gradients of NaN once.
LEVEL_0 = ('vgg11_bn_narrow', 'densenet21', 'googlenet', 'cbamresnet17', 'attention56')


@pytest.mark.parametrize(
    'case', marked([case for case in CASES if 'loss' in EXPECTED[case]], QUICK_STEPS)
)
def test_logits_and_a_training_step_equal_those_of_the_reference(case, golden):
    ours, expected = golden(case), EXPECTED[case]
    tx = optax.trace(decay=0.0)  # keeps the gradient
    step = parallel.parallel_train_step(
        partial(
            steps.train_step, objective=Objective(ours.model, cross_entropy, lambda x: x), tx=tx
        ),
        mesh_of(1),
    )

    @partial(jax.jit, compiler_options=quickly(0 if case in LEVEL_0 else 1))
    def logits_and_step(variables, batch):
        params, stats = variables['params'], variables['batch_stats']
        state = TrainState(0, params, stats, tx.init(params))
        logits = ours.model.apply(variables, batch['image'], train=False)
        return logits, *step(state, batch, Metrics.zero())

    batch = {
        'image': rule.images(ours.size),
        'label': rule.labels(),
        'mask': np.ones(rule.BATCH, bool),
    }
    with float64():
        logits, state, metrics = logits_and_step(ours.variables, batch)
        counts = values_of_each_batch_norm(ours.model, ours.variables, batch['image'])

    np.testing.assert_allclose(logits, expected['logits'], rtol=1e-8)
    np.testing.assert_allclose(metrics.loss / rule.BATCH, expected['loss'], rtol=1e-6)  # float32
    compare(ours.named({'params': state.opt_state.trace}), expected['gradients'])
    running = unbiased(ours.variables['batch_stats'], state.batch_stats, counts)
    compare(ours.named({'batch_stats': running}), expected['running'])


def values_of_each_batch_norm(model, variables, images):
    """Number of values per channel that each BatchNorm sees, by path."""
    counts = {}

    def record(call, args, kwargs, context):
        if isinstance(context.module, layers.BatchNorm) and context.method_name == '__call__':
            counts[context.module.path] = np.prod(args[0].shape[:-1])
        return call(*args, **kwargs)

    # The folded form calls no BatchNorm.
    plain = model.clone(tail='plain') if hasattr(model, 'tail') else model
    with nn.intercept_methods(record):
        apply = partial(plain.apply, train=True, mutable=True)
        jax.eval_shape(
            lambda *args, key: apply(*args, rngs={'dropout': key}),
            variables,
            images,
            key=jax.random.key(0),
        )
    return counts


def unbiased(before, after, counts):
    """Converts running statistics to torch's unbiased batch variance; ours is biased."""
    before, after = (flax.traverse_util.flatten_dict(tree) for tree in (before, after))
    result = {}
    for path, value in after.items():
        result[path] = value = np.asarray(value)
        if path[-1] == 'var':
            kept = 0.9 * before[path]
            result[path] = kept + (value - kept) * counts[path[:-1]] / (counts[path[:-1]] - 1)
    return flax.traverse_util.unflatten_dict(result)


def compare(actual, expected):
    """Compares digests up to rounding; gradients before a BatchNorm may be pure rounding."""
    digests = {name: rule.digest(values) for name, values in actual.items()}
    assert digests.keys() == expected.keys()
    largest = max(norm for _, norm, _, _ in expected.values())
    for name, digest in expected.items():
        tolerance = 1e-9 * max(map(abs, digest)) + 1e-15 * largest
        np.testing.assert_allclose(digests[name], digest, rtol=1e-6, atol=tolerance, err_msg=name)
