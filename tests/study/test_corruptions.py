import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_digits

from ssanet_jax.study.corruptions import CORRUPTIONS

KINDS = sorted({name.rpartition('_')[0] for name in CORRUPTIONS})
NOISE = ['gaussian_noise', 'impulse_noise', 'shot_noise']


@pytest.fixture(scope='module', params=[8, 28])
def digits(request):
    """60 gray images [60, H, H, 3]."""
    images = [Image.fromarray(np.uint8(image * 255 / 16)) for image in load_digits().images[:60]]
    size = (request.param, request.param)
    return np.stack([np.asarray(image.resize(size).convert('RGB')) for image in images])


def color_images(size=8):
    return np.random.default_rng(0).integers(0, 256, (5, size, size, 3), np.uint8)


def uniform(value, count=40):
    return np.full((count, 28, 28, 3), value, np.uint8)


@pytest.mark.parametrize('kind', KINDS)
def test_each_severity_is_further_from_the_images_which_stay_gray(kind, digits):
    before = digits.copy()
    distances = []
    for severity in (1, 2, 3):
        y = CORRUPTIONS[f'{kind}_{severity}'](digits, 0)
        assert (y.dtype, y.shape) == (np.uint8, digits.shape)
        assert (y == y[..., :1]).all()
        distances.append(np.mean(np.square(y.astype(float) - digits)))
    assert 5**2 < distances[0] < distances[1] < distances[2]
    np.testing.assert_array_equal(digits, before)


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch(name):
    corrupt, images = CORRUPTIONS[name], color_images()
    parts = [corrupt(images[:2], 7), corrupt(images[2:], 9)]
    np.testing.assert_array_equal(corrupt(images, 7), np.concatenate(parts))


@pytest.mark.parametrize('kind', [*NOISE, 'shift'])
def test_random_numbers_differ_between_images(kind):
    same = np.repeat(color_images(28)[:1], 20, axis=0)
    y = CORRUPTIONS[f'{kind}_1'](same, 0)
    distinct = len(np.unique(y.reshape(20, -1), axis=0))
    assert distinct == 20 if kind in NOISE else distinct > 5
    assert (y != CORRUPTIONS[f'{kind}_1'](same, 1000)).any()


def test_gaussian_noise_has_the_standard_deviation_of_imagenet_c():
    noise = CORRUPTIONS['gaussian_noise_1'](uniform(128), 0).astype(float) - 128
    assert noise.mean() == pytest.approx(0, abs=0.5)
    assert noise.std() == pytest.approx(0.08 * 255, rel=0.02)
    places = noise[..., 0].reshape(40, -1)
    np.testing.assert_allclose(np.corrcoef(places) - np.eye(40), 0, atol=0.2)


@pytest.mark.parametrize('gray', [30, 90])
def test_shot_noise_has_the_mean_and_the_variance_of_a_poisson_count(gray):
    y = CORRUPTIONS['shot_noise_1'](uniform(gray), 0).astype(float)
    assert y.mean() == pytest.approx(gray, rel=0.02)
    assert y.var() == pytest.approx(gray * 255 / 60, rel=0.05)
    assert (CORRUPTIONS['shot_noise_3'](uniform(0, 2), 0) == 0).all()


def test_impulse_noise_makes_a_share_of_the_pixels_black_or_white():
    for name, amount in (('impulse_noise_1', 0.03), ('impulse_noise_3', 0.27)):
        y = CORRUPTIONS[name](uniform(100), 0)
        assert np.mean(y == 0) == pytest.approx(amount / 2, rel=0.1)
        assert np.mean(y == 255) == pytest.approx(amount / 2, rel=0.1)
        assert set(np.unique(y)) == {0, 100, 255}


@pytest.mark.parametrize(('severity', 'sigma'), [(1, 0.4), (2, 0.6), (3, 0.8)])
def test_gaussian_blur_filters_each_channel_of_each_image(severity, sigma):
    images = color_images()
    y = CORRUPTIONS[f'gaussian_blur_{severity}'](images, 0)
    for n, c in np.ndindex(5, 3):
        expected = ndimage.gaussian_filter(images[n, ..., c].astype(float), sigma, mode='nearest')
        np.testing.assert_allclose(y[n, ..., c], expected, atol=0.51)


def test_pixelate_replaces_blocks_by_their_means():
    images = color_images()
    y = CORRUPTIONS['pixelate_2'](images, 0)
    for n, i, j, c in np.ndindex(images.shape):
        block = images[n, i // 2 * 2 : i // 2 * 2 + 2, j // 2 * 2 : j // 2 * 2 + 2, c]
        assert abs(y[n, i, j, c] - block.mean()) <= 1


def test_contrast_and_brightness_equal_a_loop_over_every_value():
    images = color_images()
    flat, bright = CORRUPTIONS['contrast_1'](images, 0), CORRUPTIONS['brightness_2'](images, 0)
    for n, i, j, c in np.ndindex(images.shape):
        value, mean = float(images[n, i, j, c]), images[n, :, :, c].mean()
        assert abs(flat[n, i, j, c] - (mean + 0.4 * (value - mean))) <= 0.51
        assert abs(bright[n, i, j, c] - min(255, value + 0.3 * 255)) <= 0.51


@pytest.mark.parametrize(('name', 'pixels'), [('shift_1', 1), ('shift_3', 3)])
def test_shift_moves_each_image_in_one_of_eight_directions(name, pixels):
    images = np.random.default_rng(0).integers(1, 256, (60, 8, 8, 3), np.uint8)
    found = set()
    for image, moved in zip(images, CORRUPTIONS[name](images, 0), strict=True):
        matches = []
        for dy, dx in np.ndindex(3, 3):
            expected = np.zeros_like(image)
            for i, j in np.ndindex(8, 8):
                y, x = i + (dy - 1) * pixels, j + (dx - 1) * pixels
                if 0 <= y < 8 and 0 <= x < 8:
                    expected[y, x] = image[i, j]
            if (expected == moved).all():
                matches.append((dy, dx))
        found.update(matches)
        assert len(matches) == 1
    assert found == set(np.ndindex(3, 3)) - {(1, 1)}
