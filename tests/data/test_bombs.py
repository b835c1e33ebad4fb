"""Decompression bombs and large files are refused before they are decoded."""

import functools
import io
import json
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from ssanet_jax import data
from ssanet_jax.data import conversion, readers
from ssanet_jax.data.decode import DecodeSpec, decode
from ssanet_jax.errors import ConfigError
from tests import fabricate
from tests.helpers import ROOT

MEGABYTES = 300  # that the decoder is left with; 2**27 pixels take 384
BOTH = pytest.mark.parametrize('crop', ['resized', 'center'])


def chunk(kind, content):
    check = zlib.crc32(kind + content)
    return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', check)


def png(width, height, *, first=b''):
    """A valid black image of one bit per pixel, compressed 2,000 times."""
    header = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0))
    packed, row = zlib.compressobj(9), bytes(1 + (width + 7) // 8)
    content = b''.join(packed.compress(row) for _ in range(height)) + packed.flush()
    return b'\x89PNG\r\n\x1a\n' + first + header + chunk(b'IDAT', content) + chunk(b'IEND', b'')


def encoded(kind, **kwargs):
    buffer = io.BytesIO()
    frames = [Image.new('RGB', (16, 16), (i, 0, 0)) for i in range(3)]
    frames[0].save(buffer, kind, **({'append_images': frames[1:]} | kwargs))
    return bytearray(buffer.getvalue())


def jpeg(width, height, **kwargs):
    """An image whose header claims more pixels than follow."""
    file = encoded('JPEG', **kwargs)
    frame = file.index(b'\xff\xc2' if kwargs.get('progressive') else b'\xff\xc0')
    file[frame + 5 : frame + 9] = struct.pack('>HH', height, width)
    return bytes(file)


def gif(width, height):
    file = encoded('GIF')
    file[6:10] = struct.pack('<HH', width, height)
    return bytes(file)


def bmp(width, height):
    file = encoded('BMP')
    file[18:26] = struct.pack('<ii', width, height)
    return bytes(file)


@functools.cache
def bombs():
    """Files of 160 million pixels or more."""
    small = chunk(b'aaAa', struct.pack('>II', 10, 10))  # where a header would have its sides
    return {
        'huge png': png(16_000, 10_000),
        'huge png behind another chunk': png(16_000, 10_000, first=small),
        'huge jpeg': jpeg(14_000, 12_000),
        'huge progressive jpeg': jpeg(65_000, 65_000, progressive=True),
        'huge gif': gif(60_000, 60_000),
        'huge bmp': bmp(30_000, 30_000),
    }


@functools.cache
def others():
    """Formats that other decoders accept, animated and not."""
    return {
        kind.lower() + ('' if still else ' that moves'): bytes(encoded(kind, save_all=not still))
        for kind, still in [
            ('GIF', True), ('GIF', False), ('WEBP', True), ('WEBP', False),
            ('TIFF', True), ('TIFF', False), ('BMP', True), ('PPM', True), ('ICO', True),
        ]
    }  # fmt: skip


def keys(number):
    return np.zeros((number, 2), np.int64)


PROGRAM = f"""
import json, resource, sys
import numpy as np
from ssanet_jax.config import base
from ssanet_jax.data.decode import DecodeSpec, decode

files = {{name: bytes.fromhex(file) for name, file in json.load(sys.stdin).items()}}
dataset = base().dataset
dataset.max_image_pixels = int(sys.argv[1])
out, key = np.zeros((1, 32, 32, 3), np.uint8), np.zeros((1, 2), np.int64)
specs = DecodeSpec(dataset, 'resized'), DecodeSpec(dataset, 'center')
for file in (files.pop('good jpeg'), files.pop('good png')):  # starts threads
    assert [decode([file], key, out, spec) for spec in specs] == [{{}}, {{}}]
with open('/proc/self/statm') as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ({MEGABYTES} << 20),) * 2)
reasons = [
    (name, decode([file], key, out, spec)[0])
    for name, file in files.items()
    for spec in specs
]
print(json.dumps(reasons))
"""


def decoded_with_little_memory(files, max_pixels):
    rng = np.random.default_rng(0)
    good = {
        f'good {kind.lower()}': fabricate.photograph(rng, kind=kind) for kind in ('JPEG', 'PNG')
    }
    content = json.dumps({name: file.hex() for name, file in (good | files).items()})
    command = [sys.executable, '-c', PROGRAM, str(max_pixels)]
    return subprocess.run(
        command, input=content, capture_output=True, text=True, timeout=300, cwd=ROOT
    )


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc')
def test_bombs_are_refused_before_they_take_memory():
    done = decoded_with_little_memory(bombs(), 2**27)
    assert done.returncode == 0, done.stderr[-2000:]
    reasons = json.loads(done.stdout)
    assert len(reasons) == 2 * len(bombs())
    for name, reason in reasons:
        known = 'pixels; dataset.max_image_pixels is 134,217,728' in reason
        assert known or reason.startswith('It is neither JPEG nor PNG'), name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='/proc')
def test_without_the_limit_a_bomb_takes_the_memory():
    done = decoded_with_little_memory({'png': bombs()['huge png']}, 2**31)
    assert 'OOM when allocating' in done.stderr


@BOTH
def test_no_other_format_is_decoded(imagenet, crop):
    files = list(others().values())
    out = np.zeros((len(files), 32, 32, 3), np.uint8)
    bad = decode(files, keys(len(files)), out, DecodeSpec(imagenet.dataset, crop))
    assert list(bad) == list(range(len(files)))
    assert all(reason.startswith('It is neither JPEG nor PNG') for reason in bad.values())


@BOTH
@pytest.mark.parametrize('kind', ['JPEG', 'PNG'])
def test_only_the_file_of_too_many_bytes_is_refused(imagenet, crop, kind):
    rng = np.random.default_rng(0)
    good = fabricate.photograph(rng)
    large = fabricate.photograph(rng, kind=kind) + bytes(len(good))  # would be decoded
    files, spec = [good, large, good], DecodeSpec(imagenet.dataset, crop)
    out = np.zeros((3, 32, 32, 3), np.uint8)
    assert decode(files, keys(3), out, spec) == {}
    assert out[1].any()
    imagenet.dataset.max_image_bytes = max(len(good), len(large) - 1)
    bad = decode(files, keys(3), out, spec)
    assert bad == {1: f'It has over {len(large) - 1:,} bytes, dataset.max_image_bytes.'}
    assert [image.any() for image in out] == [True, False, True]
    imagenet.dataset.max_image_bytes += 1
    assert decode(files, keys(3), out, spec) == {}


@pytest.fixture
def folder(imagenet, tmp_path):
    imagenet.dataset.name = 'folder'
    imagenet.dataset.data_dir = str(fabricate.image_folder(tmp_path / 'trees'))
    return imagenet


def test_a_large_file_of_a_folder_is_not_read_completely(folder, monkeypatch):
    path = f'{folder.dataset.data_dir}/train/ash/3.jpg'
    with open(path, 'r+b') as file:
        file.truncate(2**40)  # takes no room
    folder.dataset.max_image_bytes = 2**16
    lengths = []
    read = readers._read
    monkeypatch.setattr(
        readers, '_read', lambda *args: lengths.append(len(read(*args))) or read(*args)
    )
    with pytest.raises(ConfigError, match=r'ash/3\.jpg cannot be decoded: It has over 65,536 byte'):
        list(data.eval_batches(folder, 'train'))
    assert max(lengths) == 2**16 + 1
    folder.dataset.bad_eval_images, folder.dataset.max_bad_fraction = 'incorrect', 0.1
    label = np.concatenate([batch['label'] for batch in data.eval_batches(folder, 'train')])
    assert (label == -1).sum() == 1


def test_shrinking_keeps_files_that_are_not_decoded(monkeypatch):
    """Pillow supports more formats; those are not opened."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 2**26)  # an error above twice as many
    for name, file in (bombs() | others()).items():
        assert conversion.Shrink(max_side=8, quality=90).smaller(file) == file, name


def test_shrinking_keeps_files_that_pillow_cannot_handle():
    shrink = conversion.Shrink(max_side=16, quality=90)
    good = fabricate.photograph(np.random.default_rng(0), kind='PNG')
    length = good.index(b'IDAT') - 4
    broken = good[:length] + struct.pack('>I', 99) + good[length + 4 :]  # no chunk follows
    assert shrink.smaller(good) != good
    assert shrink.smaller(broken) == broken
    wide = png(70_000, 17)  # more than a JPEG may have
    assert shrink.smaller(wide) == wide
