import numpy as np
import pytest

import ssanet_jax
from ssanet_jax.tools import publish
from tests.helpers import run_tool
from tests.hub_server import hub  # noqa: F401


@pytest.fixture(scope='session')
def trained(digits_run):
    return ssanet_jax.load(str(digits_run))


@pytest.fixture(scope='session')
def out(digits_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp('published') / 'digits'
    run_tool(publish, f'--workdir={digits_run}', f'--out={folder}', '--repo=me/digits')
    return folder


@pytest.fixture(scope='session')
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
