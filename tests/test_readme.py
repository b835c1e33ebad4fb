import re

import jax
import jax.numpy as jnp

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.models.registry import NETWORKS
from tests.helpers import ROOT

README = (ROOT / 'README.md').read_text()


def test_the_custom_model_runs_as_written():
    code = re.search(r'```python\n(.*?)```', README, re.DOTALL).group(1)
    names = {}
    exec(code, names)
    x = jnp.ones((2, 8, 8, 3))
    y, _ = names['Net']().init_with_output(jax.random.key(0), x, train=False)
    assert y.shape == (2, 8, 8, 64)


def test_the_number_of_networks_is_correct():
    assert f'the [{len(NETWORKS)} networks]' in README.replace('\n', ' ')


def test_the_sizes_of_cifar_networks_are_correct():
    cost = model_cost(create_model('ssa_resnet50', num_classes=10, stem='cifar'), 32)
    row = f'| {cost.parameters:,} | 3.87 G | {cost.macs / 1e9:.3f} G |'
    assert row in (ROOT / 'docs/models.md').read_text()
