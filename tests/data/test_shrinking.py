"""Images are made smaller before training, and left alone where that is impossible."""

import io
import struct

import numpy as np
from PIL import Image

from ssanet_jax.data import conversion
from tests import fabricate
from tests.data.bombs import bombs, others, png


def test_shrinking_keeps_bad_images():
    for name, file in fabricate.bad_files().items():
        assert conversion.Shrink(short_side=10, quality=90).smaller(file) == file, name


def test_shrinking_keeps_files_that_are_not_decoded():
    """Pillow supports more formats; those are not opened."""
    files = {name: file for name, (file, _) in bombs().items()} | others()
    for name, file in files.items():
        assert conversion.Shrink(short_side=8, quality=90).smaller(file) == file, name


def test_shrinking_turns_images_and_composes_them_on_white():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new('RGBA', (64, 32), (0, 0, 0, 0))
    image.paste((250, 0, 0, 255), (0, 0, 32, 32))
    buffer = io.BytesIO()
    image.save(buffer, 'PNG', exif=exif)
    file = conversion.Shrink(short_side=16, quality=95).smaller(buffer.getvalue())
    small = Image.open(io.BytesIO(file))
    assert small.size == (16, 32)
    assert small.getexif().get(0x0112, 1) == 1
    expected = [(250, 0, 0)] * 16 + [(255, 255, 255)] * 16  # the left side is the upper one
    column = [small.getpixel((8, row)) for row in (2, 28)]
    assert np.abs(np.array(column) - [expected[2], expected[28]]).max() < 12


def test_shrinking_keeps_files_that_pillow_cannot_handle():
    shrink = conversion.Shrink(short_side=16, quality=90)
    good = fabricate.photograph(np.random.default_rng(0), kind='PNG')
    length = good.index(b'IDAT') - 4
    broken = good[:length] + struct.pack('>I', 99) + good[length + 4 :]  # no chunk follows
    assert shrink.smaller(good) != good
    assert shrink.smaller(broken) == broken
    wide = png(70_000, 17)  # more than a JPEG may have
    assert shrink.smaller(wide) == wide
