"""Crops of single images against loops and Pillow."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from ssanet_jax.data.decoding.crops import crop_windows, draw_resized
from ssanet_jax.data.decoding.decode import DecodeSpec, decode, draw
from tests import fabricate


@pytest.fixture
def dataset(imagenet):
    return imagenet.dataset


def pil(encoded):
    return Image.open(io.BytesIO(encoded)).convert('RGB')


def keys(number):
    return np.stack([np.zeros(number, np.int64), np.arange(number)], axis=1)


def crops(files, dataset, key=None, size=32, crop='resized', num_examples=100):
    out = np.zeros((len(files), size, size, 3), np.uint8)
    spec = DecodeSpec(dataset, crop, 0, num_examples)
    assert decode(files, keys(len(files)) if key is None else key, out, spec) == {}
    return out


def test_windows_equal_torchvisions():
    """RandomResizedCrop.get_params reimplemented, with the same uniforms."""
    rng = np.random.default_rng(0)
    sides = rng.integers(1, 600, size=(3000, 2))
    sides[:1000] = (375, 500)
    sides[1000:1100, 0] = 3  # too flat for any crop
    sides[1100:1200, 1] = 3
    uniforms = rng.random((3000, 22)).astype(np.float32)
    found = crop_windows(sides, uniforms, (0.08, 1.0), (0.75, 4 / 3))
    for (height, width), u, window in zip(sides, uniforms.astype(float), found, strict=True):
        for area, aspect in zip(u[2:12], u[12:], strict=True):
            target = height * width * (0.08 + 0.92 * area)
            ratio = math.exp(math.log(0.75) + (math.log(4 / 3) - math.log(0.75)) * aspect)
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                top, left = math.floor(u[0] * (height - h + 1)), math.floor(u[1] * (width - w + 1))
                break
        else:
            w, h = width, height
            if width / height < 0.75:
                h = max(1, round(w / 0.75))
            elif width / height > 4 / 3:
                w = max(1, round(h * 4 / 3))
            top, left = (height - h) // 2, (width - w) // 2
        assert tuple(window) == (top, left, h, w)


def test_resized_draws_are_the_same_in_all_versions_of_numpy():
    """Of seed 7, epoch 3 and example 5; Generator.random would promise less."""
    key = np.array([[3, 5], [3, 6]])
    drawn = draw_resized(key, 7)
    assert (drawn.shape, drawn.dtype) == ((2, 23), np.float32)
    first = [3365392, 8339456, 5709851, 2875136]
    np.testing.assert_array_equal(drawn[0, :4] * 2**23, first)
    assert (drawn >= 0).all()
    assert (drawn < 1).all()
    np.testing.assert_array_equal(draw_resized(key[1:], 7), drawn[1:])
    for other, seed in (([3, 6], 7), ([2, 5], 7), ([3, 5], 6), ([5, 3], 7)):
        assert not np.isin(draw_resized(np.array([other]), seed), drawn[0]).any()


def test_windows_have_the_stated_distributions(dataset):
    """Area, log aspect and position of crops that always fit into a square are uniform."""
    drawn = draw(keys(4000), DecodeSpec(dataset, 'resized'))
    sides = np.full((4000, 2), 1000)
    top, left, height, width = crop_windows(sides, drawn[:, 1:], (0.1, 0.5), (0.75, 4 / 3)).T
    area = (height * width / 1e6 - 0.1) / 0.4
    aspect = np.log(width / height) / (2 * math.log(4 / 3)) + 0.5
    places = top / (1000 - height), left / (1000 - width)
    for values in (area, aspect, *places, drawn[:, 0]):
        counts = np.bincount(np.clip((values * 10).astype(int), 0, 9), minlength=10)
        assert ((counts - 400) ** 2 / 400).sum() < 9 + 5 * math.sqrt(2 * 9)


def test_half_of_the_images_are_mirrored(dataset):
    dataset.crop_area = dataset.crop_aspect = (1.0, 1.0)
    image = np.zeros((32, 32, 3), np.uint8)
    image[:, 16:] = 255
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, 'JPEG')
    found = crops([buffer.getvalue()] * 1000, dataset)
    mirrored = (found[:, :, :8].mean(axis=(1, 2, 3)) > 128).mean()
    assert abs(mirrored - 0.5) < 5 * 0.5 / math.sqrt(1000)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic'])
def test_center_crop_is_pils_antialiased_resize_and_crop(dataset, interpolation):
    dataset.eval_crop_pct, dataset.interpolation = 0.875, interpolation
    resampling = {'bilinear': Image.Resampling.BILINEAR, 'bicubic': Image.Resampling.BICUBIC}
    rng = np.random.default_rng(0)
    files = [fabricate.photograph(rng) for _ in range(9)]
    for file, found in zip(files, crops(files, dataset, size=56, crop='center'), strict=True):
        image = pil(file)
        short = min(image.size)
        image = image.resize([side * 64 // short for side in image.size], resampling[interpolation])
        left, top = round((image.width - 56) / 2), round((image.height - 56) / 2)
        expected = np.asarray(image.crop((left, top, left + 56, top + 56)), int)
        difference = np.abs(found - expected)
        assert difference.max() <= 2
        assert difference.mean() < 0.1


@pytest.mark.parametrize('antialias', [False, True])
@pytest.mark.parametrize('size', [16, 32, 64])
def test_a_crop_is_near_pils_antialiased_resize(dataset, antialias, size):
    """Crops of about 100 pixels; for small sizes they are decoded at reduced resolution."""
    dataset.flip, dataset.antialias = False, antialias
    area, aspect = dataset.crop_area, dataset.crop_aspect = (1.0, 1.0), (1e-3, 1e3)
    rng = np.random.default_rng(1)
    files = [fabricate.photograph(rng) for _ in range(8)]
    differences = []
    for file, found in zip(files, crops(files, dataset, key=keys(8) * 0, size=size), strict=True):
        image = pil(file)
        uniforms = draw(keys(1), DecodeSpec(dataset, 'resized'))
        window = crop_windows(np.array([image.size[::-1]]), uniforms[:, 1:], area, aspect)
        top, left, height, width = window[0].tolist()
        box = (left, top, left + width, top + height)
        expected = image.resize((size, size), Image.Resampling.BILINEAR, box)
        differences.append(np.abs(found - np.asarray(expected, int)).mean())
    assert np.mean(differences) < (5 if antialias else 9)  # gray levels


@pytest.mark.parametrize(
    'odd', [{'kind': 'PNG'}, {'mode': 'CMYK'}, {'mode': 'L'}, {'mode': 'P', 'kind': 'PNG'}], ids=str
)
def test_odd_files_become_rgb(dataset, odd):
    file = fabricate.photograph(np.random.default_rng(0), **odd)
    assert crops([file], dataset).any()
    out = crops([file], dataset, crop='center')
    image = pil(file)
    left, top = (side - min(image.size) * 0.875 for side in image.size)
    box = (left / 2, top / 2, image.width - left / 2, image.height - top / 2)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR, box), float)
    found = out[0].astype(float)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.9


@pytest.mark.parametrize('crop', ['resized', 'padded'])
def test_a_crop_depends_on_its_file_and_key_alone(dataset, crop):
    """Neither the other images of the call nor their number matters."""
    rng = np.random.default_rng(0)
    files = [fabricate.photograph(rng, kind='PNG' if i == 5 else 'JPEG') for i in range(70)]
    together = crops(files, dataset, crop=crop)
    order = rng.permutation(70)
    shuffled = crops([files[i] for i in order], dataset, keys(70)[order], crop=crop)
    np.testing.assert_array_equal(shuffled, together[order])
    some = [0, 5, 64, 69]
    alone = [crops([files[i]], dataset, keys(70)[i : i + 1], crop=crop)[0] for i in some]
    np.testing.assert_array_equal(alone, together[some])


@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_a_padded_crop_equals_a_loop(dataset, kind):
    """The image shifted by up to the padding, mirrored or not, on black."""
    dataset.crop_padding = 4
    file = fabricate.photograph(np.random.default_rng(0), kind=kind)
    (whole,) = crops([file], dataset, crop='whole')
    key = keys(9)
    draws = draw(key, DecodeSpec(dataset, 'padded', 0, 100))
    assert len(np.unique(draws, axis=0)) > 5
    expected = np.zeros((9, 32, 32, 3), np.uint8)
    for n, h, w in np.ndindex(9, 32, 32):
        top, left, mirrored = draws[n]
        source_h, source_w = h + top - 4, (31 - w if mirrored else w) + left - 4
        if 0 <= source_h < 32 and 0 <= source_w < 32:
            expected[n, h, w] = whole[source_h, source_w]
    np.testing.assert_array_equal(crops([file] * 9, dataset, key, crop='padded'), expected)
    dataset.flip = False
    assert not draw(key, DecodeSpec(dataset, 'padded', 0, 100))[:, 2].any()


def test_other_keys_give_other_crops(dataset):
    file = fabricate.photograph(np.random.default_rng(0))
    key = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    one, same, example, seed = crops([file] * 4, dataset, key)
    np.testing.assert_array_equal(one, same)
    assert (one != example).any()
    assert (one != seed).any()


@pytest.mark.parametrize('crop', ['resized', 'padded', 'center', 'whole'])
def test_bad_files_have_a_reason_and_are_black_and_the_rest_is_decoded(dataset, crop):
    good = fabricate.photograph(np.random.default_rng(0))
    bad = fabricate.bad_files()
    files = [good, *bad.values(), good]
    out = np.full((len(files), 32, 32, 3), 7, np.uint8)
    reasons = decode(files, keys(len(files)), out, DecodeSpec(dataset, crop, 0, 100))
    assert list(reasons) == list(range(1, len(files) - 1))
    assert (out[1:-1] == 0).all()
    assert out[0].std() > 5
    assert out[-1].std() > 5
    assert 'The file is empty' in reasons[1]
    assert 'none of JPEG, PNG' in reasons[1 + list(bad).index('text')]
    assert '3,600,000,000 pixels' in reasons[1 + list(bad).index('huge')]


def test_a_jpeg_with_too_many_pixels_is_bad(dataset):
    dataset.max_image_pixels = 1000
    out = np.zeros((1, 32, 32, 3), np.uint8)
    file = fabricate.photograph(np.random.default_rng(0))
    for crop in ('resized', 'whole'):
        bad = decode([file], keys(1), out, DecodeSpec(dataset, crop))
        assert 'dataset.max_image_pixels is 1,000' in bad[0]


def test_each_choice_of_resizing_gives_another_image(dataset):
    rng = np.random.default_rng(0)
    files = [fabricate.photograph(rng) for _ in range(4)]
    found = set()
    for dataset.interpolation in ('bilinear', 'bicubic'):
        for dataset.antialias in (False, True):
            found.add(crops(files, dataset).tobytes())
    assert len(found) == 4
