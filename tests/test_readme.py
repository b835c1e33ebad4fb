import re
from functools import partial

import jax
import jax.numpy as jnp

from ssanet_jax.models.registry import NETWORKS
from tests.helpers import ROOT, quick_jit

README = (ROOT / 'README.md').read_text()


def test_the_custom_model_runs_as_written():
    code = re.search(r'```python\n(.*?)```', README, re.DOTALL).group(1)
    names = {}
    exec(code, names)
    x = jnp.ones((2, 8, 8, 3))
    run = quick_jit(partial(names['Net']().init_with_output, train=False))
    y, _ = run(jax.random.key(0), x)
    assert y.shape == (2, 8, 8, 64)


def test_the_number_of_networks_is_correct():
    assert f'the [{len(NETWORKS)} networks]' in README.replace('\n', ' ')
