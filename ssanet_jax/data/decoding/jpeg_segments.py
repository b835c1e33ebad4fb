"""What is read from a JPEG without decoding it: its orientation and whether it has all scans."""

import re
from collections.abc import Iterator

import numpy as np

from ssanet_jax.data.decoding.formats import exif_orientation

_EXIF = b'Exif\0\0'
_SOS, _EOI, _APP1 = 0xDA, 0xD9, 0xE1
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
# A marker with a segment, or the end: no stuffed byte, restart, start, or fill byte.
_MARKER = re.compile(rb'\xff[^\x00\x01\xd0-\xd8\xff]')
_NOISE = bytes(range(1, 255)) * 4  # entropy-coded data that is not a marker


def _segments(file: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields (marker, start, stop) of each segment's content; the end has none."""
    place = 2
    while found := _MARKER.search(file, place):
        length = found.end()
        marker = file[length - 1]
        if marker == _EOI:
            yield marker, length - 2, length - 2
        if marker == _EOI or length + 2 > len(file):
            return
        place = length + (file[length] << 8 | file[length + 1])
        yield marker, length + 2, place


def orientation(file: bytes) -> int:
    """Reads the Exif orientation, 1 to 8; 1, upright, if there is none."""
    for marker, start, stop in _segments(file):
        if marker == _APP1 and file.startswith(_EXIF, start):
            return exif_orientation(file[start:stop])
        if marker == _SOS:
            break
    return 1


def has_all_scans(file: bytes) -> bool:
    """Whether the scans, which may end early, bring all bits of all coefficients."""
    missing: dict[int, np.ndarray] = {}  # component: how many bits of its 64 coefficients
    progressive = False
    for marker, start, stop in _segments(file):
        content = file[start:stop]
        if marker in _FRAMES:
            missing = {component: np.full(64, 16) for component in content[6::3]}
            progressive = marker in (0xC2, 0xCA)
        elif marker == _SOS and content:
            end = 1 + 2 * content[0]
            first, last, bits = (
                content[end : end + 3].ljust(3, b'\0') if progressive else (0, 63, 0)
            )
            for component in missing.keys() & set(content[1:end:2]):
                missing[component][first : last + 1] = bits & 15
            if not any(left.any() for left in missing.values()):
                return True
    return False


def has_end(file: bytes) -> bool:
    """Whether the end marker follows the last scan."""
    return any(marker == _EOI for marker, _, _ in _segments(file))


def with_height(file: bytes, height: int) -> bytes:
    """Changes the height that the header says."""
    for marker, start, _ in _segments(file):
        if marker in _FRAMES:
            return file[: start + 1] + height.to_bytes(2) + file[start + 3 :]
    return file


def with_noise(file: bytes) -> bytes:
    """Inserts noise after the last scan: it changes the image only if the scan ends early."""
    for marker, start, _ in _segments(file):
        if marker == _EOI:
            return file[:start] + _NOISE + file[start:]
    return file + _NOISE
