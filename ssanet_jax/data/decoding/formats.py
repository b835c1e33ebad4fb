"""Image formats: how files are recognized, and what is removed from them before decoding.

Decoders unpack and keep text, color profiles and other metadata of any size, which here are of no
use. Only the orientation is read.
"""

import re
import struct
import zlib
from collections.abc import Iterator

import numpy as np

_PNG_HEADER = b'\x89PNG\r\n\x1a\n\0\0\0\rIHDR'  # the sides follow
SUFFIXES = frozenset(
    ['.avif', '.bmp', '.gif', '.jfif', '.jpe', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp']
)  # of files that may be decoded

_SIGNATURES = {
    'JPEG': rb'\xff\xd8\xff',
    'PNG': rb'\x89PNG',
    'WebP': rb'RIFF....WEBP',
    'GIF': rb'GIF8[79]a',
    'BMP': rb'BM.{12}[\x0c-\x80]\0\0\0',
    'TIFF': rb'II\*\0|MM\0\*',
    'AVIF': rb'....ftyp(.{4})*avi[fs]',
}
_PATTERNS = {kind: re.compile(pattern, re.DOTALL) for kind, pattern in _SIGNATURES.items()}
_START = 128  # bytes that show the format


class BadImageError(ValueError):
    """A file that cannot be decoded; the message says why."""


class TooLargeError(BadImageError):
    """A file or image beyond the limits of `config.dataset`."""


def image_format(file: bytes) -> str | None:
    """Returns 'JPEG', 'PNG', 'WebP', 'GIF', 'BMP', 'TIFF' or 'AVIF' by the first bytes, or None."""
    start = file[:_START]
    return next((kind for kind, pattern in _PATTERNS.items() if pattern.match(start)), None)


_PNG_PIXELS = {b'IHDR', b'PLTE', b'tRNS', b'IDAT', b'IEND'}


def png_pixels(file: bytes) -> bytes:
    """Removes all chunks of a PNG but those of its pixels and its orientation.

    Raises:
      BadImageError: it does not begin with its header, is truncated, or a checksum is wrong.
    """
    if not file.startswith(_PNG_HEADER):
        raise BadImageError(f'It is a PNG without its header: it begins with {file[:16]!r}.')
    exif, pixels = b'', []
    for name, start, stop in _png_chunks(file):
        chunk = file[start - 8 : stop + 4]
        if name == b'eXIf':
            exif = chunk
        elif name in _PNG_PIXELS:
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:]):
                raise BadImageError('It is a PNG with a wrong checksum.')
            pixels.append(chunk)
    header, *pixels = pixels
    return b''.join([file[:8], header, exif, *pixels])


def _png_chunks(file: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields the name of each chunk, and where its content starts and stops."""
    name, stop = b'', 4
    while name != b'IEND':
        start = stop + 12  # after a checksum, a length and a name
        length, name = struct.unpack_from('>I4s', file.ljust(start), start - 8)
        stop = start + length
        if stop + 4 > len(file):
            raise BadImageError('It is truncated.')
        yield name, start, stop


def webp_sides(file: bytes) -> tuple[int, int]:
    """Height and width of a WebP, from its first chunk."""
    kind, content = file[12:16], file[20:30].ljust(10, b'\0')
    if kind == b'VP8X':
        width, height = content[4:7] + b'\0', content[7:10] + b'\0'
        return 1 + int.from_bytes(height, 'little'), 1 + int.from_bytes(width, 'little')
    if kind == b'VP8L':
        bits = int.from_bytes(content[1:5], 'little')
        return 1 + (bits >> 14 & 0x3FFF), 1 + (bits & 0x3FFF)
    if kind == b'VP8 ':
        width, height = struct.unpack('<HH', content[6:10])
        return height & 0x3FFF, width & 0x3FFF
    raise BadImageError(f'It is a WebP without an image: its first chunk is {kind!r}.')


def gif_pixels(file: bytes) -> bytes:
    """Removes extensions before the first image of a GIF but not what makes colors transparent."""
    place = 13 + (3 << 1 + (file[10] & 7) if file[10] & 0x80 else 0)  # after the palette
    header, control = file[:place], b''
    while file.startswith(b'!', place):
        start, place = place, place + 2
        while place < len(file) and file[place]:
            place += 1 + file[place]
        place += 1
        if file[start + 1] == 0xF9:  # graphic control
            control = file[start:place]
    return header + control + file[place:]


_TIFF_TYPES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}  # bytes of BYTE, ASCII, SHORT, LONG and RATIONAL
_TIFF_PIXELS = {
    256: 'ImageWidth', 257: 'ImageLength', 258: 'BitsPerSample', 259: 'Compression',
    262: 'PhotometricInterpretation', 266: 'FillOrder', 273: 'StripOffsets', 274: 'Orientation',
    277: 'SamplesPerPixel', 278: 'RowsPerStrip', 279: 'StripByteCounts',
    284: 'PlanarConfiguration', 292: 'T4Options', 293: 'T6Options', 317: 'Predictor',
    320: 'ColorMap', 322: 'TileWidth', 323: 'TileLength', 324: 'TileOffsets',
    325: 'TileByteCounts', 338: 'ExtraSamples', 339: 'SampleFormat', 347: 'JPEGTables',
    529: 'YCbCrCoefficients', 530: 'YCbCrSubSampling', 532: 'ReferenceBlackWhite',
}  # fmt: skip
_TIFF_TABLES = 2**22  # bytes of all tags, most of them offsets of strips
# None, CCITT, LZW, JPEG, deflate, PackBits, deflate. The buffers of others are not limited.
_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)


def tiff_pixels(file: bytes, max_pixels: int) -> bytes:
    """Removes the metadata and all images but the first from the directory of a TIFF.

    Raises:
      BadImageError: it is truncated, its compression is not known, its tags take more than 4 MB,
        or its tiles have more than `max_pixels`.
    """
    order = '<' if file.startswith(b'II') else '>'
    entries = [entry for entry in _tiff_entries(file, order) if entry[0] in _TIFF_PIXELS]
    if sum(count * _TIFF_TYPES.get(kind, 8) for _, kind, count, _ in entries) > _TIFF_TABLES:
        raise BadImageError(f'It is a TIFF whose tags have more than {_TIFF_TABLES:,} bytes.')
    tags = {entry[0]: _tiff_values(file, order, entry) for entry in entries}
    compression, width, length = (int(tags.get(tag, [1])[0]) for tag in (259, 322, 323))
    if compression not in _TIFF_COMPRESSIONS:
        raise BadImageError(f'It is a TIFF of compression {compression}, which is not decoded.')
    if width * length > max_pixels:
        raise BadImageError(f'It is a TIFF with tiles of {width * length:,} pixels.')
    for places, sizes in ((273, 279), (324, 325)):
        counts = tags.get(sizes, ())
        if len(tags.get(places, ())) == len(counts) > 0 and max(tags[places] + counts) > len(file):
            raise BadImageError('It is truncated.')
    directory = struct.pack(order + 'H', len(entries))
    directory += b''.join(struct.pack(order + 'HHI4s', *entry) for entry in entries)
    place = len(file) + len(file) % 2
    header = file[:4] + struct.pack(order + 'I', place)
    return header + file[8:].ljust(place - 8, b'\0') + directory + bytes(4)


def _tiff_values(file: bytes, order: str, entry: tuple[int, int, int, bytes]) -> np.ndarray:
    """The values of an entry, int64 [count]; those of fractions are not read."""
    _, kind, count, value = entry
    size = count * _TIFF_TYPES.get(kind, 8)
    if size > 4:
        (place,) = struct.unpack(order + 'I', value)
        value = file[place : place + size]
    if len(value) < size:
        raise BadImageError('It is truncated.')
    dtype = {3: 'u2', 4: 'u4'}.get(kind, 'u1')
    return np.frombuffer(value, order + dtype, max(1, count)).astype(np.int64)


def _tiff_entries(file: bytes, order: str) -> list[tuple[int, int, int, bytes]]:
    """Tag, type, count, and value or its place, of each entry of the first directory."""
    try:
        (start,) = struct.unpack_from(order + 'I', file, 4)
        (count,) = struct.unpack_from(order + 'H', file, start)
        places = range(start + 2, start + 2 + 12 * count, 12)
        return [struct.unpack_from(order + 'HHI4s', file, place) for place in places]
    except struct.error as error:
        raise BadImageError('It is truncated.') from error


_AVIF_EXIF = re.compile(rb'(infe[\2\3].{7,9})Exif', re.DOTALL)


def avif_pixels(file: bytes) -> bytes:
    """Hides the Exif data of an AVIF, whose orientation counts as little as by the standard."""
    return _AVIF_EXIF.sub(rb'\1skip', file)


def exif_orientation(exif: bytes) -> int:
    """Reads the orientation, 1 to 8, from Exif data; 1, upright, if there is none."""
    exif = exif.removeprefix(b'Exif\0\0')
    order = {b'II*\0': '<', b'MM\0*': '>'}.get(exif[:4])
    try:
        for tag, kind, _, value in _tiff_entries(exif, order) if order else ():
            if tag == 274:
                (found,) = struct.unpack_from(f'{order}{"I" if kind == 4 else "H"}', value)
                return found if 1 <= found <= 8 else 1
    except BadImageError:
        pass
    return 1
