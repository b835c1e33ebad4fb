r"""Compares decoders of parts of JPEGs: TensorFlow, OpenCV, Pillow, simplejpeg and others.

    pip install imagecodecs 'PyTurboJPEG<2' && apt install libturbojpeg0
    taskset --cpu-list 0 python benchmarks/decoders.py --out=benchmarks/results/decoders.json

Each decodes the random resized crops of 64 photographs, for images of 224 and of 112 pixels; for
the latter most are halved. The photographs are those of input.py, and the crops are not resized.
All take turns in each round. Figures are of processor time, and ratios are of the same round.
Libraries that are not installed are left out.
"""

import argparse
import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import cv2
import numpy as np
import photographs
import simplejpeg
from common import machine, spread, write
from PIL import Image

from ssanet_jax.config import base
from ssanet_jax.data.decoding.decode import DecodeSpec, draw
from ssanet_jax.data.decoding.jpeg_parts import Part, decode_part, find_parts

IMAGES = 64
OURS, TENSORFLOW = 'simplejpeg, rows of the crop', 'TensorFlow, the crop'
PACKAGES = ('simplejpeg', 'pillow', 'opencv-python-headless')
_OPENCV = {
    0: cv2.IMREAD_COLOR_RGB,
    1: cv2.IMREAD_REDUCED_COLOR_2,
    2: cv2.IMREAD_REDUCED_COLOR_4,
    3: cv2.IMREAD_REDUCED_COLOR_8,
}
Decode = Callable[[Part], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--rounds', type=int, default=15)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    contenders, packages = make_contenders()
    result: dict[str, Any] = {'machine': machine(*PACKAGES, *packages), 'images': IMAGES}
    for size in (224, 112):
        parts = make_parts(size)
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(arguments.rounds + 1):
            for name, decode in contenders.items():
                seconds[name].append(measure(decode, parts))
            if number == 0:  # it warms caches
                seconds = {name: [] for name in contenders}
        result[f'{size} pixels'] = {
            name: summary(values, seconds, contenders[name], parts)
            for name, values in seconds.items()
        }
        for name, values in result[f'{size} pixels'].items():
            print(f'{size} pixels  {name:30} {values}')
    if arguments.out:
        write(arguments.out, result)


def make_parts(size: int) -> list[Part]:
    """The crops of the photographs for images of `size`."""
    spec = DecodeSpec(base().dataset, 'resized')
    files = [photographs.encoded(number) for number in range(IMAGES)]
    keys = np.stack([np.zeros(IMAGES, np.int64), np.arange(IMAGES)], axis=1)
    return list(find_parts(files, draw(keys, spec)[:, 1:], size, spec.dataset).values())


def make_contenders() -> tuple[dict[str, Decode], list[str]]:
    """Decoders by name, and the distributions of those that are optional."""
    contenders: dict[str, Decode] = {
        OURS: decode_part,
        'simplejpeg': by_simplejpeg,
        'OpenCV': by_opencv,
        'Pillow': by_pillow,
    }
    packages = []
    for name, distribution, make in (
        (TENSORFLOW, 'tensorflow-cpu', make_tensorflow),
        ('imagecodecs', 'imagecodecs', make_imagecodecs),
        ('PyTurboJPEG', 'PyTurboJPEG', make_turbojpeg),
    ):
        try:
            contenders[name] = make()
            packages.append(distribution)
        except (ImportError, OSError, RuntimeError) as error:
            print(f'{name} is left out: {error}')
    return contenders, packages


def cut(image: np.ndarray, part: Part) -> np.ndarray:
    top, left, height, width = part.window.tolist()
    return image[top : top + height, left : left + width]


def by_simplejpeg(part: Part) -> np.ndarray:
    """All rows of the image."""
    height, width = (-(-side // (1 << part.halvings)) for side in part.sides)
    image = simplejpeg.decode_jpeg(
        part.file,
        fastdct=True,
        fastupsample=True,
        min_height=height,
        min_width=width,
        min_factor=float(1 << part.halvings),
    )
    return cut(image, part)


def by_opencv(part: Part) -> np.ndarray:
    flags = _OPENCV[part.halvings] | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(part.file, np.uint8), flags)
    part_of_image = cut(image, part)
    return part_of_image if part.halvings == 0 else part_of_image[..., ::-1]


def by_pillow(part: Part) -> np.ndarray:
    image = Image.open(io.BytesIO(part.file))
    if part.halvings:
        height, width = (side >> part.halvings for side in part.sides)
        image.draft('RGB', (width, height))
    return cut(np.asarray(image), part)


def make_tensorflow() -> Decode:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)

    def decode(part: Part) -> np.ndarray:
        return tf.io.decode_and_crop_jpeg(
            part.file,
            part.window,
            channels=3,
            ratio=1 << part.halvings,
            fancy_upscaling=False,
            dct_method='INTEGER_FAST',
        ).numpy()

    return decode


def make_imagecodecs() -> Decode:
    """Has no reduced sizes."""
    import imagecodecs

    def decode(part: Part) -> np.ndarray:
        image = imagecodecs.jpeg8_decode(part.file)
        if part.halvings:
            height, width = (-(-side // (1 << part.halvings)) for side in part.sides)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        return cut(image, part)

    return decode


def make_turbojpeg() -> Decode:
    import turbojpeg

    decoder = turbojpeg.TurboJPEG(os.environ.get('TURBOJPEG'))
    flags = turbojpeg.TJFLAG_FASTDCT | turbojpeg.TJFLAG_FASTUPSAMPLE

    def decode(part: Part) -> np.ndarray:
        factor = (1, 1 << part.halvings)
        image = decoder.decode(part.file, turbojpeg.TJPF_RGB, factor, flags)
        return cut(image, part)

    return decode


def measure(decode: Decode, parts: list[Part]) -> float:
    """Seconds of the processor per image."""
    start = time.process_time()
    for part in parts:
        decode(part)
    return (time.process_time() - start) / len(parts)


def summary(
    values: list[float], seconds: dict[str, list[float]], decode: Decode, parts: list[Part]
) -> dict[str, Any]:
    """Milliseconds per image, the rate relative to TensorFlow's, and the difference from ours."""
    found = {'cpu_ms_per_image': spread([1e3 * value for value in values])}
    if TENSORFLOW in seconds:
        pairs = zip(seconds[TENSORFLOW], values, strict=True)
        found['cpu_rate_ratio'] = spread([theirs / value for theirs, value in pairs])
    pixels = [np.abs(decode(part).astype(int) - decode_part(part)) for part in parts]
    found['largest_difference'] = max(int(difference.max()) for difference in pixels)
    return found


if __name__ == '__main__':
    main()
