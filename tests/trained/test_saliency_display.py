"""Overlays against loops, and the labels of figures."""

import io
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from ssanet_jax import create_model
from ssanet_jax.analysis.saliency import grad_cam, saliency_maps
from ssanet_jax.config import base
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.trained.saliency import enlarge, explain, legible_size
from ssanet_jax.trained.saliency_display import draw_saliency, overlay
from tests.helpers import quick_jit


@pytest.mark.parametrize('times', [1, 3])
def test_an_overlay_is_a_mixture_of_gray_and_the_maps_color(times):
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (4, 4, 3), np.uint8)
    values = rng.uniform(size=(4 * times, 4 * times))
    found = overlay(image, values, alpha=0.3)
    assert found.dtype == np.uint8
    for y, x in np.ndindex(values.shape):
        red, green, blue = image[y // times, x // times].tolist()
        gray = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        color = mpl.colormaps['inferno'](values[y, x])
        expected = [0.7 * gray + 0.3 * 255 * color[c] for c in range(3)]
        np.testing.assert_allclose(found[y, x], expected, atol=0.51)


@pytest.mark.parametrize(
    ('shape', 'highest', 'alpha', 'message'),
    [
        ((5, 4), 1, 0.5, 'cannot be laid over'),
        ((2, 2), 1, 0.5, 'cannot be laid over'),
        ((4, 4), 2, 0.5, 'a map from 2 to 2'),
        ((4, 4), 1, 1.5, 'alpha=1.5'),
    ],
)
def test_invalid_overlays_are_refused(shape, highest, alpha, message):
    with pytest.raises(ValueError, match=message):
        overlay(np.zeros((4, 4, 3), np.uint8), np.full(shape, float(highest)), alpha)


@pytest.fixture(scope='module')
def trained():
    config = base()
    config.model.name = 'ssa_resnet8'
    config.dataset.image_size = 8
    model = create_model('ssa_resnet8', num_classes=5, stage_sizes=(1, 1), width=4)
    image = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), image, train=False))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(-(leaf.ndim > 1), 1, leaf.shape).astype('f4') / leaf.size**0.3,
        shapes,
    )
    return TrainedModel(config, model, variables, 7, ('a', 'b', 'c', 'd', 'e, a long name'))


@pytest.fixture(scope='module')
def images():
    return np.random.default_rng(6).integers(0, 256, (3, 8, 8, 3), np.uint8)


def test_an_explanation_has_the_prediction_and_the_maps_of_the_network(trained, images):
    found = explain(trained, images)
    inputs = (images / 255 - trained.config.dataset.mean) / trained.config.dataset.std
    inputs = inputs.astype(np.float32)
    apply = quick_jit(partial(trained.model.apply, train=False))
    logits = np.asarray(apply(trained.variables, inputs), np.float64)
    maps = saliency_maps(trained.model, trained.variables, inputs)
    cam = grad_cam(trained.model, trained.variables, inputs, logits.argmax(axis=1))
    for row, one in enumerate(found):
        likeliest = logits[row].argmax()
        share = np.exp(logits[row, likeliest]) / np.exp(logits[row]).sum()
        assert (one.name, one.probability) == (
            trained.classes[likeliest],
            pytest.approx(share, 1e-4),
        )
        assert list(one.maps) == ['stage1', 'stage2', 'mean', 'Grad-CAM']
        np.testing.assert_allclose(one.maps['stage2'], maps.stages['stage2'][row], rtol=1e-4)
        np.testing.assert_allclose(one.maps['mean'], maps.mean[row], rtol=1e-4)
        np.testing.assert_allclose(one.maps['Grad-CAM'], cam[row], rtol=1e-3, atol=1e-5)
        np.testing.assert_array_equal(one.image, images[row])


def test_an_explanation_of_mirrored_evaluation_has_its_prediction(trained, images):
    config = trained.config.copy_and_resolve_references()
    config.dataset.eval_flip = True
    mirrored = trained._replace(config=config)
    for one, (top, *_) in zip(
        explain(mirrored, images), Predictor(mirrored).top(images, 1), strict=True
    ):
        assert one.name == top.name
        assert one.probability == pytest.approx(top.probability, rel=1e-5)
    plain = [one.probability for one in explain(trained, images)]
    assert [one.probability for one in explain(mirrored, images)] != pytest.approx(plain, rel=1e-4)


def test_enlarged_maps_range_from_0_to_1(rng):
    saliency = rng.uniform(2, 5, (8, 8))
    scaled = (saliency - saliency.min()) / (saliency.max() - saliency.min())
    np.testing.assert_allclose(enlarge(saliency, 8), scaled, atol=1e-6)
    large = enlarge(saliency, 32)
    assert (large.shape, large.dtype) == ((32, 32), np.float32)
    overlay(np.zeros((8, 8, 3), np.uint8), large)
    np.testing.assert_allclose(large[1:-1, 1:-1].mean(), scaled.mean(), atol=0.02)


def test_legible_sizes_are_multiples():
    assert [legible_size(size) for size in (8, 28, 32, 64, 224, 299)] == [
        224,
        224,
        224,
        192,
        224,
        299,
    ]


def test_a_figure_has_each_panel_and_names_it(trained, images):
    found = explain(trained, images)
    found[0] = found[0]._replace(name='$1_a and $, or more')
    found[1] = found[1]._replace(name='a name of 23 characters')
    one, all_of_them = draw_saliency(found[:1]), draw_saliency(found)
    titles = ['image', 'stage 1', 'stage 2', 'mean', 'Grad-CAM']
    panels = one.axes[:-1]  # without the color bar
    assert [ax.get_title() for ax in panels] == titles
    assert panels[0].get_xlabel() == f'$1_a and $\n{found[0].probability:.1%}'
    assert panels[2].get_xlabel().endswith('4 \u00d7 4')
    assert len(all_of_them.axes) == 15 + 1
    assert all_of_them.axes[5].get_xlabel().startswith('a name of 23 charac…\n')
    assert [ax.get_title() for ax in all_of_them.axes[:6]] == [*titles, '']
    for figure in (one, all_of_them):
        file = io.BytesIO()
        figure.savefig(file)  # warnings are errors
        assert Image.open(file).size == figure.canvas.get_width_height()
