"""Whatever reads a trained run uses images of `dataset.eval_size`."""

import numpy as np
import pytest

from ssanet_jax import data
from ssanet_jax.export.program import as_trained, resize_rule
from ssanet_jax.report.page import write_report
from ssanet_jax.trained.load import load_trained
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.trained.saliency_boxes import to_evaluation
from tests.export.fabricated import make_run


@pytest.fixture(scope='module')
def run(tmp_path_factory, data_dir):
    fields = {'model.name': 'resnet8', 'dataset.eval_size': 12}
    return make_run(tmp_path_factory.mktemp('run'), data_dir, **fields)


def test_predictions_exports_and_boxes_have_the_size_of_evaluation(run):
    trained = load_trained(run, 'latest')
    dataset = trained.config.dataset
    assert dataset.image_size == 8
    batch = next(data.eval_batches(trained.config, 'test'))
    assert batch['image'].shape[1:] == (12, 12, 3)
    assert Predictor(trained).logits(batch['image'][:3]).shape == (3, 10)
    with pytest.raises(ValueError, match=r'expects uint8 images \[N, 12, 12, 3\]'):
        Predictor(trained).logits(np.zeros((1, 8, 8, 3), np.uint8))
    assert as_trained(trained, preprocessing=True).shape == (12, 12, 3)
    assert 'resized to 12 x 12' in resize_rule(trained.preprocessing)
    assert to_evaluation(np.array([[0, 0, 4, 4]]), 8, 8, dataset).shape == (12, 12)


def test_the_report_has_the_cost_at_that_size(run):
    page = write_report(run, 'latest').read_text()
    assert 'at 12x12' in page
    assert 'Cost of one image of 12x12 pixels' in page
