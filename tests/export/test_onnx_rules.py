"""Each ONNX rule, run by onnxruntime, against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from ssanet_jax import layers
from ssanet_jax.export.onnx import to_onnx
from ssanet_jax.export.onnx_rules import RULES

X = np.random.default_rng(0).normal(size=(3, 5, 6, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 2)).astype(np.float32)


def run(fn, x=X):
    """Computes `fn` of x by onnxruntime."""
    model = to_onnx(lambda image: {'y': fn(image)}, x.shape[1:], x.dtype)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    (y,) = session.run(['y'], {'image': x})
    return y


def pooled(x, reduce, fill):
    """Reduces 3x3 windows at stride 2 with padding 1, one by one."""
    n, h, w, c = x.shape
    padded = np.full((n, h + 2, w + 2, c), fill, x.dtype)
    padded[:, 1:-1, 1:-1] = x
    windows = [
        [reduce(padded[:, i : i + 3, j : j + 3], axis=(1, 2)) for j in range(0, w, 2)]
        for i in range(0, h, 2)
    ]
    return np.moveaxis(np.array(windows), 2, 0)


def convolved(x):
    """Convolves 3x3 at stride 2 with padding 1, two groups, kernel i + j + c."""
    kernel = np.add.outer(np.add.outer(np.arange(3.0), np.arange(3.0)), np.arange(2.0))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((3, 3, 3, 2), np.float32)
    for i, j, group in np.ndindex(3, 3, 2):
        part = padded[:, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, 2 * group : 2 * group + 2]
        y[:, i, j, group] = (part * kernel).sum(axis=(1, 2, 3))
    return y


def convolve(x):
    kernel = jnp.add.outer(jnp.add.outer(jnp.arange(3.0), jnp.arange(3.0)), jnp.arange(2.0))
    kernel = jnp.stack([kernel, kernel], axis=-1)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (2, 2),
        ((1, 1), (1, 1)),
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        feature_group_count=2,
    )


# In JAX, and in NumPy.
CASES = {
    'abs': (jnp.abs, np.abs),
    'add': (lambda x: x + W[:, 0], lambda x: x + W[:, 0]),
    'and': (lambda x: (x > 0) & (x < 1), lambda x: (x > 0) & (x < 1)),
    'argmax': (lambda x: jnp.argmax(x, axis=3), lambda x: np.argmax(x, axis=3)),
    'broadcast_in_dim': (
        lambda x: jnp.concatenate([x, jnp.broadcast_to(x[..., :1], x.shape)], axis=3),
        lambda x: np.concatenate([x, np.repeat(x[..., :1], 4, axis=3)], axis=3),
    ),
    'concatenate': (lambda x: jnp.concatenate([x, -x], 1), lambda x: np.concatenate([x, -x], 1)),
    'conv_general_dilated': (convolve, convolved),
    'convert_element_type': (lambda x: x.astype(jnp.int32), lambda x: x.astype(np.int32)),
    'copy': (lambda x: jnp.array(x, copy=True), np.copy),
    'div': (lambda x: x / 3, lambda x: x / 3),
    'dot_general': (lambda x: jnp.dot(x, W), lambda x: np.dot(x, W)),
    'dot_general_of_two': (
        lambda x: jnp.einsum('nhwc,nhwd->ncd', x, x),
        lambda x: np.einsum('nhwc,nhwd->ncd', x, x),
    ),
    'eq': (lambda x: jnp.sign(W[0, 0]) * 0 == x * 0, lambda x: np.ones_like(x, bool)),
    'exp': (jnp.exp, np.exp),
    'gather': (lambda x: x[:, ::2, ::3], lambda x: x[:, ::2, ::3]),
    'gather_nearest': (
        lambda x: x[:, jnp.array([0, 0, 4])[:, None], jnp.array([5, 1])],
        lambda x: x[:, [0, 0, 4]][:, :, [5, 1]],
    ),
    'gather_one': (lambda x: x[:, 2, 1:4, 0], lambda x: x[:, 2, 1:4, 0]),
    'ge': (lambda x: x >= 0, lambda x: x >= 0),
    'gt': (lambda x: x > 0, lambda x: x > 0),
    'integer_pow': (lambda x: x**3, lambda x: x**3),
    'iota': (
        lambda x: x + jax.lax.broadcasted_iota(jnp.float32, x.shape, 2),
        lambda x: x + np.arange(6, dtype=np.float32)[:, None],
    ),
    'le': (lambda x: x <= 0, lambda x: x <= 0),
    'log': (lambda x: jnp.log(jnp.abs(x)), lambda x: np.log(np.abs(x))),
    'logistic': (nn.sigmoid, lambda x: 1 / (1 + np.exp(-x))),
    'lt': (lambda x: x < 0, lambda x: x < 0),
    'max': (lambda x: jnp.maximum(x, W[:, 0]), lambda x: np.maximum(x, W[:, 0])),
    'max_with_0': (nn.relu, lambda x: np.where(x > 0, x, 0)),
    'min': (lambda x: jnp.minimum(x, 0.5), lambda x: np.minimum(x, 0.5)),
    'mul': (lambda x: x * x[..., :1], lambda x: x * x[..., :1]),
    'ne': (lambda x: x != X[0, 0, 0, 0], lambda x: x != X[0, 0, 0, 0]),
    'neg': (lambda x: -x, lambda x: -x),
    'not': (lambda x: ~(x > 0), lambda x: ~(x > 0)),
    'or': (lambda x: (x > 1) | (x < 0), lambda x: (x > 1) | (x < 0)),
    'pad': (
        lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3)), constant_values=7),
        lambda x: np.pad(x, ((0, 0), (1, 2), (0, 0), (0, 3)), constant_values=7),
    ),
    'pow': (lambda x: jnp.abs(x) ** W[:, 0], lambda x: np.abs(x) ** W[:, 0]),
    'reduce_max': (lambda x: x.max(axis=(1, 3)), lambda x: x.max(axis=(1, 3))),
    'reduce_min': (lambda x: x.min(axis=2), lambda x: x.min(axis=2)),
    'reduce_sum': (lambda x: x.sum(axis=(1, 2)), lambda x: x.sum(axis=(1, 2))),
    'reduce_window_max': (layers.max_pool, lambda x: pooled(x, np.max, -np.inf)),
    'reduce_window_sum': (
        lambda x: nn.pool(x, 0.0, jax.lax.add, (3, 3), (2, 2), ((1, 1), (1, 1))),
        lambda x: pooled(x, np.sum, 0),
    ),
    'reshape': (lambda x: x.reshape(-1, 4).reshape(-1, 30, 4), lambda x: x.reshape(3, 30, 4)),
    'rsqrt': (lambda x: jax.lax.rsqrt(jnp.abs(x)), lambda x: 1 / np.sqrt(np.abs(x))),
    'select_n': (lambda x: jnp.where(x > 0, x, 2.0), lambda x: np.where(x > 0, x, 2)),
    'slice': (
        lambda x: jax.lax.slice(x, (0, 1, 0, 0), (x.shape[0], 5, 6, 4), (1, 2, 3, 1)),
        lambda x: x[:, 1::2, ::3],
    ),
    'split': (lambda x: jnp.split(x, [1], axis=3)[1], lambda x: x[..., 1:]),
    'sqrt': (lambda x: jnp.sqrt(jnp.abs(x)), lambda x: np.sqrt(np.abs(x))),
    'square': (jnp.square, np.square),
    'squeeze': (lambda x: x[..., :1].squeeze(3), lambda x: x[..., 0]),
    'stack': (lambda x: jnp.stack([x, x + 1], 2), lambda x: np.stack([x, x + 1], 2)),
    'stop_gradient': (jax.lax.stop_gradient, np.copy),
    'sub': (lambda x: 1 - x, lambda x: 1 - x),
    'tanh': (jnp.tanh, np.tanh),
    'transpose': (lambda x: x.transpose(0, 3, 1, 2), lambda x: x.transpose(0, 3, 1, 2)),
}


def used(fn):
    """Names of the rules that converting `fn` applies."""
    names, rules = set(), dict(RULES)
    for name, rule in rules.items():

        def noted(*arguments, name=name, rule=rule):
            names.add(name)
            return rule(*arguments)

        RULES[name] = noted
    try:
        to_onnx(lambda image: {'y': fn(image)}, X.shape[1:], X.dtype)
    finally:
        RULES.update(rules)
    return names


@pytest.mark.parametrize('name', CASES)
def test_a_rule_computes_what_numpy_does(name):
    fn, by_numpy = CASES[name]
    y, expected = run(fn), by_numpy(X)
    assert y.shape == expected.shape
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_the_cases_apply_every_rule():
    assert set().union(*(used(fn) for fn, _ in CASES.values())) == set(RULES)


def test_uint8_images_are_accepted():
    x = np.arange(2 * 3, dtype=np.uint8).reshape(2, 3)
    np.testing.assert_array_equal(run(lambda x: x.astype(jnp.float32) * 2, x), 2.0 * x)


@pytest.mark.parametrize(
    ('fn', 'message'),
    [
        (lambda x: jnp.sort(x, axis=1), '^sort$'),
        (lambda x: jax.lax.map(jnp.sin, x.transpose(1, 0, 2, 3)), '^scan$'),
        (lambda x: jax.lax.pad(x, 0.0, ((0, 0, 0), (0, 0, 1), (0, 0, 0), (0, 0, 0))), '^pad where'),
        (
            lambda x: jnp.take(x, jnp.argmax(x.sum((0, 2, 3))), 1),
            'its indices depend',
        ),
        (lambda x: x * x.shape[0], '^dim_as_value$'),
        (lambda x: jnp.concatenate([x, jnp.ones_like(x)], axis=3), 'the same for all images'),
    ],
    ids=['unknown', 'loop', 'dilated', 'indices', 'count', 'constants'],
)
def test_an_operation_without_a_rule_is_rejected(fn, message):
    with pytest.raises(NotImplementedError, match=message):
        run(fn)
