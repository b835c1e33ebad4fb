"""Recognizes weight files by their content, whatever their names."""

import zipfile
from pathlib import Path
from typing import Literal

Kind = Literal['safetensors', 'torch']

_OF_TORCH = ('.pth', '.pt', '.bin', '.tar', '.ckpt')

# The first bytes of other files, what the files are, and what to do.
_OTHERS = (
    (
        b'\x89HDF',
        'an HDF5 file, as Keras writes',
        'only torch weights can be read',
    ),
    (b'\x93NUMPY', 'a single NumPy array', 'name the weights, and write them with weights.save'),
    (b'version https://git-lfs', 'a pointer of Git LFS, not the file', 'run git lfs pull'),
    (b'<', 'a web page, not weights', 'download the file itself'),
    (b'\x1f\x8b', 'compressed by gzip', 'unpack it with gunzip or tar'),
)
_NUMPY = (
    'a NumPy archive',
    "if it has torch's names and layouts, convert it: "
    "weights.save('weights.safetensors', dict(numpy.load(FILE)))",
)
_KERAS = 'a Keras model', 'only torch weights can be read'
_SCRIPT = (
    'a TorchScript program',
    "save its weights: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')",
)
_FLAX = (
    'a msgpack file, as flax writes',
    'variables of a network of this package need no conversion; to get a file, restore them with '
    'flax.serialization.msgpack_restore, then '
    "weights.save('weights.safetensors', weights.to_arrays(variables, model))",
)


def kind_of(path: Path) -> Kind:
    """The kind of a weight file: by its content, or by its name if the content says nothing.

    Raises:
      ValueError: another kind of file; the message says which, and what to do.
      FileNotFoundError: there is no such file.
    """
    if path.is_dir():
        raise FileNotFoundError(
            f'{path} is not a file; expected weights, .safetensors or .pth. It is a folder; '
            'ssanet convert_torch --workdir=FOLDER --out=FILE.safetensors converts a run.'
        )
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file; expected weights, .safetensors or .pth.')
    with path.open('rb') as file:
        start = file.read(32)
    if start.startswith(b'PK\3\4'):
        found = _kind_of_zip(path)
    else:
        found = _kind_of(start, path.stat().st_size)
    if isinstance(found, tuple):
        what, remedy = found
        raise ValueError(f'{path} is {what}: {remedy}.')
    if found:
        return found
    if path.suffix == '.safetensors':
        return 'safetensors'
    if path.suffix in _OF_TORCH:
        return 'torch'
    raise ValueError(
        f'{path} is not a known kind of weight file; expected .safetensors, {", ".join(_OF_TORCH)}.'
    )


def _kind_of(start: bytes, size: int) -> Kind | tuple[str, str] | None:
    """The kind of a file by its first bytes; of another, what it is and what to do."""
    header = int.from_bytes(start[:8], 'little')
    if start[8:9] == b'{' and header <= size - 8:
        return 'safetensors'
    if start[:1] == b'\x80' and start[1:2] in (b'\2', b'\3', b'\4', b'\5'):  # pickle's protocol
        return 'torch'
    for magic, what, remedy in _OTHERS:
        if start.startswith(magic):
            return what, remedy
    if start[:1] and (0x81 <= start[0] <= 0x8F or start[0] in (0xDE, 0xDF)):  # msgpack's maps
        return _FLAX
    return None


def _kind_of_zip(path: Path) -> Kind | tuple[str, str] | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:  # cut short
        return None
    if any(name.endswith('/constants.pkl') for name in names):
        return _SCRIPT
    if any(name.endswith('data.pkl') for name in names):
        return 'torch'
    if any(name.endswith('.npy') for name in names):
        return _NUMPY
    return _KERAS if any(name.endswith('.h5') for name in names) else None
