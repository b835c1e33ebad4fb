import flax.linen as nn
import jax
import jax.numpy as jnp

from ssanet_jax.analysis.interception import on_call


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Dense(3, name='first')(x)
        return self.double(nn.Dense(2, name='second')(x))

    def double(self, x):
        return 2 * x


X = jnp.ones((1, 4))


def test_calls_come_with_path_module_and_arguments_and_results_can_be_replaced():
    variables = Net().init(jax.random.key(0), X)
    calls = []

    def hook(call):
        calls.append((call.path, type(call.module), call.args[0].shape))
        result = call()
        return jnp.ones_like(result) if call.path == 'second' else result

    with on_call(hook):
        y = Net().apply(variables, X)
    assert calls == [('', Net, (1, 4)), ('first', nn.Dense, (1, 4)), ('second', nn.Dense, (1, 3))]
    assert y.tolist() == [[2.0, 2.0]]
    assert Net().apply(variables, X).tolist() != y.tolist()


def test_only_the_named_method_is_intercepted_and_arguments_can_be_replaced():
    variables = Net().init(jax.random.key(0), X)
    with on_call(lambda call: call.method(jnp.zeros((1, 2))), 'double'):
        assert Net().apply(variables, X).tolist() == [[0.0, 0.0]]


def test_unbound_modules_run_as_they_are():
    with on_call(lambda call: 1 / 0, 'double'):
        assert Net().double(3) == 6
