import jax
import numpy as np
import pytest

from ssanet_jax.trained.load import load_trained
from tests.export.fabricated import make_run


@pytest.fixture(scope='session')
def workdir(tmp_path_factory, data_dir):
    """Of an SSA-ResNet-20."""
    return make_run(tmp_path_factory.mktemp('run') / 'digits', data_dir)


@pytest.fixture(scope='session')
def run(workdir):
    return load_trained(workdir)


@pytest.fixture(scope='session')
def test_digits():
    """Those of the test split from scikit-learn itself, uint8 [360, 8, 8, 3]."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    _, test = model_selection.train_test_split(
        np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
    )
    grey = np.round(digits.images[test] * (255 / 16)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


@pytest.fixture(scope='session')
def images(test_digits):
    """Seven of them."""
    return test_digits[:7]


@pytest.fixture(scope='session')
def normalised(images):
    """By NumPy."""
    return ((images / 255 - 0.3) / 0.37).astype(np.float32)


@pytest.fixture(scope='session')
def expected(run, normalised):
    """Logits of the network as its checkpoint has it, [7, 10]."""
    return np.asarray(jax.jit(lambda x: run.model.apply(run.variables, x, train=False))(normalised))
