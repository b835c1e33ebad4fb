"""The comparison with PyTorch: its network, its statistics, and its figure."""

import re
import sys

import jax
import numpy as np
import pytest

from ssanet_jax import create_model, weights
from studies import torch_learning
from tests.helpers import ROOT, float64

LABEL_OR_SERIES = re.compile(r'<text[^>]*>([^<]+)|id="(line2d_\d+)"')


@pytest.fixture(scope='module')
def peers():
    """Our network and torch's with the same weights, in float64: models, variables, images."""
    torch = pytest.importorskip('torch')
    from studies.torch_ssa_resnet import SSAResNet20

    torch.manual_seed(0)
    network = SSAResNet20(num_classes=10)
    model = create_model('ssa_resnet20', num_classes=10)
    variables = weights.from_torch(network.state_dict(), model, image_size=8)
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3))
    with float64():
        wide = model.clone(dtype=np.float64)
        apply = jax.jit(lambda v, x: wide.apply(v, x, train=True, mutable=['batch_stats']))
        double = jax.tree.map(lambda a: a.astype(np.float64), variables)
        logits, updated = apply(double, images)
    network = network.double()
    theirs = network(torch.from_numpy(np.moveaxis(images, 3, 1).copy()))
    return network, model, np.asarray(logits), {**variables, **updated}, theirs


def test_torch_network_computes_the_same_logits(peers):
    _, _, logits, _, theirs = peers
    np.testing.assert_allclose(theirs.detach().numpy(), logits, rtol=1e-9, atol=1e-12)


def test_biased_variances_are_those_of_flax(peers):
    from studies.torch_ssa_resnet import make_variances_biased

    network, model, _, variables, _ = peers
    expected = weights.to_arrays(variables, model)
    make_variances_biased(network, 4 * 8 * 8, steps=1)
    names = [name for name in expected if name.endswith('running_var')]
    assert len(names) == 28  # 19 convolutions, 9 SSA blocks
    for name in names:
        found = network.state_dict()[name].numpy()
        np.testing.assert_allclose(found, expected[name], rtol=1e-9, err_msg=name)


def test_the_figure_is_drawn_from_the_committed_data_without_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    copy = tmp_path / 'copy.json'
    copy.write_text((ROOT / 'studies/results/torch_learning.json').read_text())
    monkeypatch.setattr(sys, 'argv', ['torch_learning.py', '--figure_only', f'--out={copy}'])
    torch_learning.main()

    committed = (ROOT / 'studies/results/torch_learning.svg').read_text()
    drawn = LABEL_OR_SERIES.findall(copy.with_suffix('.svg').read_text())
    assert drawn == LABEL_OR_SERIES.findall(committed)
    assert ('PyTorch, float64', '') in drawn
