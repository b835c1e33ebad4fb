import re

import jax
import jax.numpy as jnp

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import model_cost
from tests.helpers import ROOT

README = (ROOT / 'README.md').read_text()


def test_the_model_of_ones_own_runs_as_written():
    code = re.search(r'```python\n(.*?)```', README, re.DOTALL).group(1)
    names = {}
    exec(code, names)
    x = jnp.ones((2, 8, 8, 3))
    y, _ = names['Net']().init_with_output(jax.random.key(0), x, train=False)
    assert y.shape == (2, 8, 8, 64)


def test_the_sizes_given_for_cifar_are_true():
    cost = model_cost(create_model('ssa_resnet50', num_classes=10, stem='cifar'), 32)
    assert f'{cost.parameters:,} parameters and {cost.macs / 1e9:.2f} G' in README


def test_every_file_it_links_to_is_there():
    for target in re.findall(r'\]\((?!https?:)([^)]+)\)', README):
        assert (ROOT / target).exists(), target
