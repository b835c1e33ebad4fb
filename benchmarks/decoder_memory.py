"""Measures the memory that decoding takes, per pixel of the image, by format.

    python benchmarks/decoder_memory.py --out=benchmarks/results/decoder_memory.json

Each file, of 4096 x 4096 pixels, is decoded in a process of its own, as for evaluation. The growth
of that process's largest resident set, in bytes, is divided by the number of pixels; the file
itself, which compresses well, is in memory before.
"""

import argparse
import io
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine, write
from PIL import ExifTags, Image

SIDE = 4096
# Options of Pillow's encoder by name; the mode of the image is the last word of the name.
KINDS: dict[str, dict[str, Any]] = {
    'JPEG RGB': {},
    'JPEG progressive RGB': {'progressive': True, 'subsampling': 0},
    'JPEG progressive CMYK': {'progressive': True, 'subsampling': 0},
    'PNG RGB': {},
    'PNG RGBA': {},
    'GIF RGB': {},
    'GIF RGBA': {},
    'BMP RGB': {},
    'TIFF RGB': {'compression': 'tiff_adobe_deflate'},
    'TIFF RGBA': {'compression': 'tiff_adobe_deflate'},
    'TIFF CMYK': {'compression': 'tiff_adobe_deflate'},
    'WEBP RGB': {},
    'WEBP RGBA': {},
    'AVIF RGB': {'speed': 10},
    'AVIF RGBA': {'speed': 10},
}
DECODE = r"""
import re, sys
from pathlib import Path
import numpy as np
from ssanet_jax.config import base
from ssanet_jax.data.decoding.decode import DecodeSpec, decode

spec, key = DecodeSpec(base().dataset, 'center'), np.zeros((1, 2), np.int64)
out = np.zeros((1, spec.size, spec.size, 3), np.uint8)

def resident(field):
    status = Path('/proc/self/status').read_text()  # ru_maxrss would begin at the parent's
    return int(re.search(field + r':\s+(\d+) kB', status)[1]) << 10

for path in sys.argv[1:]:
    file = Path(path).read_bytes()
    Path('/proc/self/clear_refs').write_text('5')  # the peak is what is resident now
    before = resident('VmRSS')
    assert decode([file], key, out, spec) == {}
print(resident('VmHWM') - before)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    grown = {}
    for kind, options in KINDS.items():
        grown[kind] = decoded(kind, options) / SIDE**2
        print(f'{kind}: {grown[kind]:.1f} bytes a pixel', flush=True)
    if arguments.out:
        packages = machine('simplejpeg', 'pillow', 'opencv-python-headless')
        write(arguments.out, {'machine': packages, 'side': SIDE, 'bytes_per_pixel': grown})


def decoded(kind: str, options: dict[str, Any]) -> int:
    """The growth in bytes of a process that decodes such a file after a tiny one."""
    form, *_, mode = kind.split()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ('tiny', 'large')]
        for file, side in zip(files, (16, SIDE), strict=True):
            file.write_bytes(encode(form, mode, side, options))
        program = [sys.executable, '-c', DECODE, *map(str, files)]
        return int(subprocess.check_output(program, cwd=ROOT, text=True))


def encode(form: str, mode: str, side: int, options: dict[str, Any]) -> bytes:
    """An image of horizontal stripes that Exif, where a format has it, says to rotate."""
    rows = np.arange(side, dtype=np.uint8)[:, None, None]
    pixels = np.broadcast_to(rows, (side, side, len(mode)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels, mode).save(buffer, form, exif=exif, **options)
    return buffer.getvalue()


if __name__ == '__main__':
    main()
