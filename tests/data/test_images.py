"""Whole images of every format against Pillow."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image, ImageOps, features
from sklearn.datasets import load_sample_images

from ssanet_jax.config import base
from ssanet_jax.data.decoding import formats, jpeg_segments
from ssanet_jax.data.decoding.crops import crop_windows
from ssanet_jax.data.decoding.decode import DecodeSpec, decode, draw
from ssanet_jax.data.decoding.images import decode_image, image_shape
from ssanet_jax.data.decoding.orientation import stored_windows, upright, upright_sides

LOSSLESS = {
    'PNG': {}, 'WEBP': {'lossless': True, 'exact': True}, 'TIFF': {}, 'AVIF': {'quality': 100},
    'BMP': {}, 'GIF': {},
}  # fmt: skip
LIMITS = base().dataset


@pytest.fixture(scope='module')
def photo():
    return Image.fromarray(load_sample_images().images[0]).crop((100, 100, 237, 211))


def encoded(image, kind, **options):
    if kind == 'AVIF' and not features.check('avif'):
        pytest.skip('Pillow without AVIF')
    file = io.BytesIO()
    image.save(file, kind, **LOSSLESS.get(kind, {}), **options)
    return file.getvalue()


def pillow(file, mode='RGB'):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(file))).convert(mode), int)


def assert_near(image, expected, most=0):
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    assert np.abs(image - expected).max() <= most


@pytest.mark.parametrize('mode', ['RGB', 'L', '1', 'P', 'CMYK'])
@pytest.mark.parametrize('kind', ['JPEG', *LOSSLESS])
def test_every_format_and_mode_is_decoded_as_by_pillow(photo, kind, mode):
    try:
        file = encoded(photo.convert(mode), kind)
    except (OSError, ValueError):
        pytest.skip('no such file')
    assert_near(decode_image(file, LIMITS), pillow(file))
    assert image_shape(file, LIMITS) == (111, 137)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'TIFF', 'AVIF'])
@pytest.mark.parametrize('tag', range(1, 9))
def test_images_are_turned_as_by_pillow(photo, kind, tag):
    exif = Image.Exif()
    exif[0x0112] = tag
    file = encoded(photo, kind, exif=exif)
    expected = pillow(file)
    assert expected.shape == ((111, 137, 3) if tag < 5 else (137, 111, 3))
    assert_near(decode_image(file, LIMITS), expected)
    assert image_shape(file, LIMITS) == expected.shape[:2]


@pytest.mark.parametrize('order', ['<', '>'])
def test_an_orientation_is_read_in_both_byte_orders_and_only_if_it_is_one(photo, order):
    exif = Image.Exif()
    exif.endian = order
    for tag, expected in ((6, 6), (0, 1), (9, 1), (600, 1)):
        exif[0x0112] = tag
        file = encoded(photo, 'JPEG', exif=exif, comment=b'Exif\0\0', progressive=True)
        assert jpeg_segments.orientation(file) == expected
        content = exif.tobytes()
        assert formats.exif_orientation(content) == expected
        for length in range(len(content)):
            assert formats.exif_orientation(content[:length]) in (1, expected)
    assert jpeg_segments.orientation(encoded(photo, 'JPEG')) == 1


def test_a_thumbnail_does_not_turn_its_photograph(photo):
    """The thumbnail inside a segment is a complete JPEG with an orientation and an end marker."""
    turned = Image.Exif()
    turned[0x0112] = 6
    inner = encoded(photo.resize((40, 30)), 'JPEG', exif=turned)
    file = encoded(photo, 'JPEG')
    segment = b'\xff\xe5' + (len(inner) + 2).to_bytes(2) + inner
    assert_near(decode_image(file[:2] + segment + file[2:], LIMITS), pillow(file))
    with pytest.raises(ValueError, match=r'^It is truncated\.$'):
        decode_image(file[:2] + segment + file[2:-2000], LIMITS)


def test_windows_of_stored_images_are_those_of_upright_ones():
    rng = np.random.default_rng(0)
    stored = rng.integers(0, 256, (7, 11, 3), np.uint8)
    for tag in range(1, 9):
        whole, tags = upright(stored, tag), np.array([tag])
        sides = upright_sides(np.array([[7, 11]]), tags)
        assert tuple(sides[0]) == whole.shape[:2]
        for _ in range(20):
            size = rng.integers(1, sides[0] + 1)
            corner = rng.integers(0, sides[0] - size + 1)
            window = np.concatenate([corner, size])[None]
            top, left, height, width = stored_windows(window, sides, tags)[0]
            found = upright(stored[top : top + height, left : left + width], tag)
            rows, columns = (slice(a, a + n) for a, n in zip(corner, size, strict=True))
            np.testing.assert_array_equal(found, whole[rows, columns])


@pytest.mark.parametrize('size', [32, 96])
def test_training_crops_are_those_of_the_upright_image(photo, size):
    """At 96 pixels the crop is decoded at full size, at 32 at half or a quarter of it."""
    dataset = base().dataset
    dataset.antialias = True
    keys = np.stack([np.zeros(4, np.int64), np.arange(4)], axis=1)
    spec = DecodeSpec(dataset, 'resized')
    for tag in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = tag
        turned = encoded(photo, 'JPEG', exif=exif, quality=98, subsampling=0)
        straight = encoded(Image.fromarray(pillow(turned).astype(np.uint8)), 'PNG')
        out = np.zeros((2, 4, size, size, 3), np.uint8)
        for file, crops in zip((turned, straight), out, strict=True):
            assert decode([file] * 4, keys, crops, spec) == {}
        difference = np.abs(out[0].astype(int) - out[1]).mean()
        assert difference < 8, tag  # gray levels
        mirrored = np.abs(out[0].astype(int) - out[1][:, :, ::-1]).mean()
        assert mirrored > 2 * difference, tag


def test_crops_of_reduced_jpegs_are_displaced_in_no_direction():
    """A ramp shows where each crop is: its mean is the place of the center."""
    dataset = base().dataset
    dataset.flip, dataset.image_size = False, 32
    ramp = np.broadcast_to(np.arange(500)[:, None, None] / 2, (500, 500, 3)).astype(np.uint8)
    keys = np.stack([np.zeros(64, np.int64), np.arange(64)], axis=1)
    spec = DecodeSpec(dataset, 'resized')
    sides = np.full((64, 2), 500)
    windows = crop_windows(sides, draw(keys, spec)[:, 1:], dataset.crop_area, dataset.crop_aspect)
    for turn in (ramp, ramp.swapaxes(0, 1)):
        out = np.zeros((64, 32, 32, 3), np.uint8)
        file = encoded(Image.fromarray(np.ascontiguousarray(turn)), 'JPEG', quality=100)
        assert decode([file] * 64, keys, out, spec) == {}
        axis = 0 if turn is ramp else 1
        center = windows[:, axis] + windows[:, 2 + axis] / 2
        displaced = 2 * out.mean(axis=(1, 2, 3)) + 0.5 - center  # pixels; the ramp rounds down
        assert abs(displaced.mean()) < 1
        assert np.abs(displaced).max() < 6


def test_sixteen_bits_are_the_upper_eight():
    levels = np.arange(1600, dtype=np.uint16).reshape(40, 40) * 41
    for kind in ('PNG', 'TIFF'):
        image = decode_image(encoded(Image.fromarray(levels), kind), LIMITS)
        assert_near(image, np.repeat(levels[..., None] >> 8, 3, axis=2))


def on_white(file):
    image = pillow(file, 'RGBA')
    out = np.zeros((*image.shape[:2], 3), int)
    for h, w, c in np.ndindex(out.shape):
        alpha = image[h, w, 3] / 255
        out[h, w, c] = round(image[h, w, c] * alpha + 255 * (1 - alpha))
    assert (image[..., 3] < 255).any()
    return out


@pytest.mark.parametrize('kind', ['PNG', 'WEBP', 'TIFF', 'AVIF'])
def test_transparent_images_are_composed_on_white(kind):
    levels = np.random.default_rng(0).integers(0, 256, (70, 20, 4), np.uint8)
    file = encoded(Image.fromarray(levels), kind)
    assert_near(decode_image(file, LIMITS), on_white(file))


def test_transparent_palettes_grays_and_colors_are_white(photo):
    small = photo.resize((30, 20))
    files = [
        encoded(small.convert('P'), 'PNG', transparency=small.convert('P').getpixel((3, 3))),
        encoded(small.convert('P'), 'PNG', transparency=bytes(range(256))),
        encoded(small.convert('P'), 'GIF', transparency=small.convert('P').getpixel((3, 3))),
        encoded(small.convert('L'), 'PNG', transparency=small.convert('L').getpixel((3, 3))),
        encoded(small, 'PNG', transparency=small.getpixel((3, 3))),
        encoded(small.convert('LA').rotate(45), 'PNG'),
    ]
    for file in files:
        assert_near(decode_image(file, LIMITS), on_white(file))


@pytest.mark.parametrize('crop', ['resized', 'padded', 'center', 'whole'])
def test_every_crop_shows_white_where_an_image_is_transparent(crop):
    dataset = base().dataset
    dataset.image_size, dataset.crop_padding = 8, 0
    file = encoded(Image.new('RGBA', (8, 8), (1, 2, 3, 0)), 'PNG')
    out = np.zeros((1, 8, 8, 3), np.uint8)
    assert decode([file], np.zeros((1, 2), np.int64), out, DecodeSpec(dataset, crop, 0, 1)) == {}
    assert (out == 255).all()


@pytest.mark.parametrize('kind', ['GIF', 'WEBP', 'TIFF', 'PNG', 'AVIF'])
def test_of_many_frames_the_first_counts(kind):
    frames = [Image.new('RGB', (16, 16), color) for color in ('red', 'blue', 'green')]
    file = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
    assert Image.open(io.BytesIO(file)).n_frames == 3
    assert_near(decode_image(file, LIMITS), np.full((16, 16, 3), (255, 0, 0)), most=2)


@pytest.mark.parametrize('mode', ['RGB', 'L', 'CMYK'])
@pytest.mark.parametrize('tail', [b'', b'\xff\xd9'])
@pytest.mark.parametrize('crop', ['center', 'resized'])
def test_a_jpeg_that_ends_early_is_truncated(mode, tail, crop, photo):
    """Cut, and cut and closed with an end marker, which decoders fill up with gray."""
    dataset = base().dataset
    dataset.crop_area = dataset.crop_aspect = (1.0, 1.0)
    file = encoded(photo.convert(mode).resize((112, 112)), 'JPEG', quality=90, subsampling=0)
    out, key = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 2), np.int64)
    assert decode([file], key, out, DecodeSpec(dataset, crop)) == {}
    start = file.index(b'\xff\xda') + 14
    for length in np.linspace(start, 0.99 * len(file), 6).astype(int):
        bad = decode([file[:length] + tail], key, out, DecodeSpec(dataset, crop))
        assert bad == {0: 'It is truncated.'}
    decode_image(file + bytes(1000), dataset)  # with other data behind it


def test_a_progressive_jpeg_without_its_last_scans_is_truncated(photo):
    file = encoded(photo, 'JPEG', quality=90, progressive=True)
    assert_near(decode_image(file, LIMITS), pillow(file))
    scans = [place for place in range(len(file)) if file.startswith(b'\xff\xda', place)]
    for place in scans:
        with pytest.raises(ValueError, match=r'^It is truncated\.$'):
            decode_image(file[:place] + b'\xff\xd9', LIMITS)


def test_a_gray_corner_is_not_a_missing_one():
    image = Image.new('RGB', (64, 64), (128, 128, 128))
    image.paste((200, 10, 10), (0, 0, 32, 32))
    for options in ({}, {'progressive': True}, {'restart_marker_blocks': 1}):
        file = encoded(image, 'JPEG', quality=95, **options)
        assert tuple(pillow(file)[-1, -1]) == (128, 128, 128)
        assert_near(decode_image(file, LIMITS), pillow(file))
        with pytest.raises(ValueError, match='truncated'):
            decode_image(file[:-12] + b'\xff\xd9', LIMITS)


@pytest.mark.parametrize('kind', LOSSLESS)
def test_files_that_are_cut_or_damaged_have_a_reason_on_one_line(photo, kind):
    file = encoded(photo, kind)
    for length in np.linspace(1, len(file) - 20, 12).astype(int):
        with pytest.raises(formats.BadImageError) as raised:
            decode_image(file[:length], LIMITS)
        assert '\n' not in str(raised.value)
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = bytearray(file)
        for place in rng.integers(0, min(len(file), 400), 4):
            damaged[place] = rng.integers(256)
        with contextlib.suppress(formats.BadImageError):  # any other error fails
            decode_image(bytes(damaged), LIMITS)


def test_a_wrong_checksum_of_a_png_is_an_error(photo):
    file = bytearray(encoded(photo, 'PNG'))
    place = file.index(b'IDAT') + 5000
    file[place] ^= 1
    with pytest.raises(formats.BadImageError, match='wrong checksum'):
        decode_image(bytes(file), LIMITS)


def test_other_files_are_named():
    for start, match in (
        (b'', 'The file is empty'),
        (b'\0\0\0 ftypheic\0\0\0\0', 'HEIC, as of phones, must be converted'),
        (b'%PDF-1.7', "It is none of JPEG, PNG, WebP, GIF.*it begins with b'%PDF-1.7"),
    ):
        with pytest.raises(formats.BadImageError, match=match):
            decode_image(start + bytes(100 * bool(start)), LIMITS)
