import pytest

from tests import fabricate
from tests.helpers import load_config


@pytest.fixture
def folder(imagenet, tmp_path):
    imagenet.dataset.name = 'folder'
    imagenet.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees'))
    return imagenet


@pytest.fixture
def trees(tmp_path):
    """The recipe at 32 pixels on a small folder of three classes."""
    config = load_config('folder')
    config.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees'))
    config.dataset.image_size = 32
    config.dataset.train_crop = 'padded'
    return config
