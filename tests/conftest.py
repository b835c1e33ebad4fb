"""Eight virtual CPU devices, no implicit dtype promotion, and shared datasets."""

import gc
import os

# LLVM's level 3 unrolls the rounds of random bits for a second per shape; level 1 compiles fastest.
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '')
    + ' --xla_backend_optimization_level=1 --xla_force_host_platform_device_count=8'
)
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'

from pathlib import Path

import jax
import numpy as np
import pytest

from tests.browser import chromium  # noqa: F401

jax.config.update('jax_numpy_dtype_promotion', 'strict')

gc.set_threshold(50_000, 20, 100)  # JAX allocates so much that collections take 6% of the tests

collect_ignore_glob = ['golden/make_*.py']  # need torch


@pytest.fixture(scope='session', autouse=True)
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Shares a compilation cache between tests, subprocesses and workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if 'PYTEST_XDIST_WORKER' in os.environ else base
    folder = str(shared / 'compiled')
    os.environ['JAX_COMPILATION_CACHE_DIR'] = folder
    jax.config.update('jax_compilation_cache_dir', folder)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope='session')
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prepared datasets of this session."""
    return tmp_path_factory.mktemp('tensorflow_datasets')


@pytest.fixture
def digits(data_dir):
    """A small config on the digits: SSA-ResNet-8 with 16 filters, 64 images per step."""
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.model.name = 'ssa_resnet8'
    config.dataset.data_dir = str(data_dir)
    return config


@pytest.fixture(scope='session')
def digits_run(tmp_path_factory, data_dir) -> Path:
    """The workdir of an SSA-ResNet-8 on the digits, evaluated at two steps; do not modify it."""
    from tests.report.runs import evaluated_run

    return evaluated_run(tmp_path_factory.mktemp('runs') / 'digits', data_dir)


@pytest.fixture(scope='session')
def trained_digits(tmp_path_factory, data_dir) -> Path:
    """As `digits_run`, but trained for 60 steps, for tests that need a network that has learned."""
    from ssanet_jax.training import loop
    from tests.helpers import load_config

    config = load_config('digits_ssa20')
    config.model.name = 'ssa_resnet8'
    config.dataset.data_dir = str(data_dir)
    config.num_train_steps = 60
    config.eval_every_steps = 30
    config.log_every_steps = 20
    workdir = tmp_path_factory.mktemp('trained') / 'digits'
    loop.train_and_evaluate(config, str(workdir))
    return workdir


def prepare_imagenet(data_dir: Path, file_format: str, **archives) -> Path:
    """imagenet2012 prepared by TFDS's own builder from a few images in ImageNet's archives."""
    import tensorflow_datasets as tfds

    from tests import fabricate

    fabricate.imagenet_archives(data_dir / 'downloads' / 'manual', **archives)
    builder = tfds.builder('imagenet2012', data_dir=data_dir, file_format=file_format)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=3))
    return data_dir


@pytest.fixture(scope='session')
def imagenet_dir(tmp_path_factory) -> Path:
    """48 + 21 images in array_record files."""
    return prepare_imagenet(tmp_path_factory.mktemp('array_record'), 'array_record')


@pytest.fixture(scope='session')
def imagenet_tfrecord_dir(tmp_path_factory) -> Path:
    """The dataset of `imagenet_dir` in tfrecord files."""
    return prepare_imagenet(tmp_path_factory.mktemp('tfrecord'), 'tfrecord')


@pytest.fixture(scope='session', params=['array_record', 'tfrecord'])
def bad_imagenet_dir(request, tmp_path_factory) -> Path:
    """The dataset of `imagenet_dir` with six bad images per split, in both file formats."""
    return prepare_imagenet(tmp_path_factory.mktemp('bad'), request.param, bad=True)


@pytest.fixture
def imagenet(imagenet_dir):
    """The ImageNet recipe at 32 pixels and 16 images per step, on `imagenet_dir`."""
    return imagenet_config(imagenet_dir)


@pytest.fixture
def imagenet_tfrecord(imagenet_tfrecord_dir):
    return imagenet_config(imagenet_tfrecord_dir)


def imagenet_config(data_dir: Path):
    from tests.helpers import load_config

    config = load_config('imagenet_ssa50')
    config.dataset.data_dir = str(data_dir)
    config.dataset.image_size = 32
    config.batch_size = 16
    return config
