import jax
import numpy as np
import pytest

from ssanet_jax import create_model
from ssanet_jax.export import export_trained
from ssanet_jax.trained.load import TrainedModel, load_trained
from tests.export.fabricated import make_run, random_variables
from tests.helpers import load_config


@pytest.fixture(scope='session')
def workdir(tmp_path_factory, data_dir):
    """The workdir of an SSA-ResNet-20."""
    return make_run(tmp_path_factory.mktemp('run') / 'digits', data_dir)


@pytest.fixture(scope='session')
def trained(workdir):
    """Loaded from the workdir; safetensors rebuilds this network from its config."""
    return load_trained(workdir)


@pytest.fixture(scope='session')
def small(data_dir):
    """A network of two blocks, which compiles faster, for formats that contain a program."""
    config = load_config('digits_ssa20')
    config.dataset.data_dir = str(data_dir)
    model = create_model('ssa_resnet20', num_classes=10, stage_sizes=(1, 1))
    classes = tuple(f'digit {i}' for i in range(10))
    return TrainedModel(config, model, random_variables(model, 8), 3, classes)


@pytest.fixture(scope='session')
def test_digits():
    """The test split from scikit-learn itself, uint8 [360, 8, 8, 3]."""
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    _, test = model_selection.train_test_split(
        np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
    )
    gray = np.round(digits.images[test] * (255 / 16)).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=-1)


@pytest.fixture(scope='session')
def images(test_digits):
    return test_digits[:7]


@pytest.fixture(scope='session')
def normalized(images):
    """The images, normalized by NumPy."""
    return ((images / 255 - 0.3) / 0.37).astype(np.float32)


@pytest.fixture(scope='session')
def logits_of(normalized):
    """A function from a trained network to its logits [7, 10], independent of `export`."""

    def logits(trained):
        apply = jax.jit(lambda x: trained.model.apply(trained.variables, x, train=False))
        return np.asarray(apply(normalized))

    return logits


@pytest.fixture(scope='session')
def exported(trained, small, images, tmp_path_factory):
    """A function from a format name to the exported folder digits_FORMAT and its metadata."""
    parent, done = tmp_path_factory.mktemp('exported'), {}

    def export(format_name):
        if format_name not in done:
            model = trained if format_name == 'safetensors' else small
            folder = parent / f'digits_{format_name}'
            done[format_name] = folder, export_trained(model, format_name, folder, images)
        return done[format_name]

    return export
