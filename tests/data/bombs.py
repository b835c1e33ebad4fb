"""Small files that take much memory to decode, and files in other formats."""

import functools
import io
import struct
import zlib

from PIL import Image, features

REFUSED = 'pixels; dataset.max_image_pixels is 134,217,728'


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


def gif_frame(width, height):
    """An image that is larger than its screen, to which Pillow adapts the screen."""
    file = encoded('GIF')
    place = file.index(b',')
    file[place + 5 : place + 9] = struct.pack('<HH', width, height)
    return bytes(file)


def rle_bmp(width, height):
    """A run-length encoding that skips 255 rows at a time."""
    buffer = io.BytesIO()
    Image.new('P', (16, 16)).save(buffer, 'BMP')
    file = bytearray(buffer.getvalue()[:1078])
    file[18:26], file[30] = struct.pack('<ii', width, height), 1
    return bytes(file) + b'\0\2\xff\xff' * 4


def webp(width, height):
    """Moves, since only then the canvas may be larger than the image."""
    file = encoded('WEBP', save_all=True, lossless=True)
    assert file[12:16] == b'VP8X'
    file[24:30] = (width - 1).to_bytes(3, 'little') + (height - 1).to_bytes(3, 'little')
    return bytes(file)


def tiff(width=16, height=16, *, extra=(), data=bytes(256), **replaced):
    """A gray TIFF; entries are (tag, type, count, value or place). Data begin at the end of tags.

    Args:
      width, height: of the image.
      extra: further entries.
      data: of pixels and tags.
      replaced: by tag, as `t273=None`.
    """
    entries = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1),
        273: (4, 1, None), 277: (3, 1, 1), 278: (4, 1, height), 279: (4, 1, 256),
    }  # fmt: skip
    entries |= {int(tag[1:]): entry for tag, entry in replaced.items()}
    entries |= {entry[0]: entry[1:] for entry in extra}
    entries = {tag: entry for tag, entry in sorted(entries.items()) if entry}
    start = 8 + 2 + 12 * len(entries) + 4
    directory = b''.join(
        struct.pack('<HHII', tag, kind, count, start if value is None else value)
        for tag, (kind, count, value) in entries.items()
    )
    return struct.pack('<2sHIH', b'II', 42, 8, len(entries)) + directory + bytes(4) + data


def avif(width, height):
    file = encoded('AVIF', append_images=[])
    place = file.index(b'ispe') + 8
    file[place : place + 8] = struct.pack('>II', width, height)
    return bytes(file)


@functools.cache
def bombs():
    """Files that claim 160 million pixels or more."""
    small = chunk(b'aaAa', struct.pack('>II', 10, 10))  # where a header would have its sides
    tiles = {'t273': None, 't278': None, 't279': None, 't324': (4, 1, None), 't325': (4, 1, 256)}
    files = {
        'huge png': (png(16_000, 10_000), REFUSED),
        'huge png behind another chunk': (
            png(16_000, 10_000, first=small), 'It is a PNG without its header'
        ),
        'huge jpeg': (jpeg(14_000, 12_000), REFUSED),
        'huge progressive jpeg': (jpeg(65_000, 65_000, progressive=True), REFUSED),
        'huge gif': (gif(60_000, 60_000), REFUSED),
        'huge gif frame': (gif_frame(60_000, 60_000), 'It cannot be decoded as GIF'),
        'huge bmp': (bmp(30_000, 30_000), REFUSED),
        'long run-length bmp': (rle_bmp(2**27, 1), 'It is 134,217,728 pixels long'),
        'huge webp': (webp(16_384, 16_384), REFUSED),
        'huge tiff': (tiff(60_000, 60_000), REFUSED),
        'tiff with a huge tile': (
            tiff(t322=(4, 1, 32_768), t323=(4, 1, 32_768), **tiles),
            'It is a TIFF with tiles of 1,073,741,824 pixels'
        ),
        'tiff of a compression with a buffer of any size': (
            tiff(t259=(3, 1, 34925)), 'It is a TIFF of compression 34925'
        ),
        'tiff with a million strips': (
            tiff(t273=(4, 1_100_000, None), data=bytes(4_400_000)),
            'It is a TIFF whose tags have more than 4,194,304 bytes'
        ),
    }  # fmt: skip
    if features.check('avif'):
        files['huge avif'] = avif(16_000, 10_000), REFUSED
    return files


@functools.cache
def hostile():
    """Small images, whose metadata would take gigabytes."""
    text = zlib.compress(bytes(2**23), 9)
    clean = bytes(encoded('PNG'))

    def with_chunks(*chunks, place=33):
        return clean[:place] + b''.join(chunks) + clean[place:]

    # Each tag of a directory is the same megabyte.
    tags = [(tag, 1, 2**20, 60_000) for tag in range(40_000, 44_000)]
    many_tags = tiff(extra=tags, data=bytes(60_000 + 2**20))
    exif = many_tags
    pages = [Image.new('L', (16, 16), i % 256) for i in range(500)]
    files = {
        'png with 950 texts': with_chunks(*[chunk(b'zTXt', b'k\0\0' + text)] * 950),
        'png with 950 texts behind': with_chunks(
            *[chunk(b'iTXt', b'k\0\1\0\0\0' + text)] * 950, place=len(clean) - 12
        ),
        'png with a profile': with_chunks(
            chunk(b'iCCP', b'k\0\0' + zlib.compress(bytes(2**27), 1))
        ),
        'png with exif': with_chunks(chunk(b'eXIf', exif)),
        'webp with exif': bytes(encoded('WEBP', exif=exif)),
        'jpeg with exif': bytes(encoded('JPEG', exif=exif[:60_000])),
        'tiff with 4,000 large tags': many_tags,
        'tiff with a million fractions': tiff(extra=[(282, 5, 2**20, None)], data=bytes(2**23)),
        'tiff of 501 pages': bytes(encoded('TIFF', save_all=True, append_images=pages)),
        'gif of many frames': bytes(encoded('GIF', save_all=True, append_images=pages)),
        'gif with comments': bytes(encoded('GIF')).replace(
            b',', b'!\xfe' + (b'\xff' + bytes(255)) * 8000 + b'\0,', 1
        ),
    }
    if features.check('avif'):
        place = exif.index(b'II')
        harmless = exif[: place + 8] + bytes(2) + b'Q' * (len(exif) - 10)
        files['avif with exif'] = bytes(encoded('AVIF', exif=harmless)).replace(harmless, exif)
        assert exif in files['avif with exif']
    return files


@functools.cache
def others():
    """Formats that other decoders accept."""
    return {kind: bytes(encoded(kind)) for kind in ('PPM', 'ICO', 'TGA', 'PCX', 'SGI', 'JPEG2000')}
