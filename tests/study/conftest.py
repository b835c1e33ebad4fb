import gc

import pytest


@pytest.fixture(scope='module')
def frozen_heap():
    """Makes collections of garbage fast: statsmodels asks for one per correction of p-values."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
