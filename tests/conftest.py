"""Eight virtual CPU devices, no implicit dtype promotion, and data sets made once."""

import os

os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8'
)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'

from pathlib import Path

import jax
import pytest

jax.config.update('jax_numpy_dtype_promotion', 'strict')

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where this session's prepared data sets are."""
    return tmp_path_factory.mktemp('tensorflow_datasets')


@pytest.fixture
def digits(data_dir):
    """A small config on the digits: 16 filters' SSA-ResNet-20, 64 images a step."""
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    return config
