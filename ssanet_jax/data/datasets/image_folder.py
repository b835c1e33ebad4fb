"""TFDS builder of a folder of images: CLASS/NAME.jpg, or SPLIT/CLASS/NAME.jpg."""

import functools
import hashlib
import os
import random
import unicodedata
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import tensorflow_datasets as tfds
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.data.datasets.folder_files import File, class_name, image_files
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable

# Folder names that stand for a split that the config names, best first.
_NAMES = {
    'train': ('train', 'training'),
    'validation': ('validation', 'valid', 'val', 'dev', 'test', 'testing'),
    'test': ('test', 'testing'),
}
_TEST = _NAMES['test']
_OUTSIDE = 'in no folder of a class'


class ImageFile(NamedTuple):
    """An image and its class.

    Attributes:
      name: path below the root, '/' between folders.
      path: to open.
      class_name: of its folder.
    """

    name: str
    path: str
    class_name: str


class FolderSpec(NamedTuple):
    """What a folder's splits and classes depend on; the fields of `config.dataset`."""

    data_dir: str
    train_split: str
    eval_split: str
    validation_share: float
    split_seed: int

    @classmethod
    def of(cls, dataset: ConfigDict) -> 'FolderSpec':
        return cls(*(dataset[name] for name in cls._fields))


class ImageFolder(tfds.core.DatasetBuilder, skip_registration=True):  # type: ignore[call-arg]
    """The images below a folder, read as they are.

    The splits are the folders SPLIT, under their own names and under 'train', 'validation' and
    'test'. Where there is none to evaluate on, `hold_out` makes one. The order within a split is
    random, and depends on its name and the names of its files alone.

    Attributes:
      files: the images of each split.
      used: the splits to train and evaluate on; the others do not add classes.
      left_out: names of everything else by reason.
      notes: sentences on what was chosen for the user.

    Raises:
      ConfigError: it is no folder, or holds no image.
    """

    name = 'image_folder'
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self, spec: FolderSpec):
        root = os.path.expanduser(spec.data_dir)
        images, self.left_out = image_files(root)
        layout = _Layout(spec, root, images)
        self.files, self.notes = layout.splits, layout.notes
        if layout.outside:
            self.left_out[_OUTSIDE] = layout.outside
        if not any(self.files.values()):
            raise ConfigError(_no_images(spec.data_dir, self.left_out))
        super().__init__(data_dir=root)
        self._data_dir = root
        self.used = {*_bases(spec.train_split), *_bases(spec.eval_split)} & self.files.keys()
        classes = {file.class_name for split in self.used for file in self.files[split]}
        self.info.features['label'].names = sorted(classes)
        infos = [
            tfds.core.SplitInfo(name=split, shard_lengths=[len(files)], num_bytes=0)
            for split, files in self.files.items()
        ]
        self.info.set_splits(tfds.core.splits.SplitDict(infos))

    def _info(self) -> tfds.core.DatasetInfo:
        features = {'image': tfds.features.Image(), 'label': tfds.features.ClassLabel()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def select(self, split: str) -> list[ImageFile]:
        """The images of a split or a slice of one, in order."""
        instruction = tfds.core.ReadInstruction.from_spec(split)
        parts = instruction.to_absolute(self.info.splits)
        return [file for part in parts for file in self.files[part.splitname][part.from_ : part.to]]

    def _download_and_prepare(self, **options: Any) -> NoReturn:
        raise NotImplementedError('The images are read as they are.')

    def _as_dataset(self, **options: Any) -> NoReturn:
        raise NotImplementedError('readers.Folder reads the images.')


@functools.lru_cache(maxsize=4)
def open_folder(spec: FolderSpec) -> ImageFolder:
    """Lists a folder once; raises ConfigError if there is none, or no image in it."""
    if not spec.data_dir or not epath.Path(os.path.expanduser(spec.data_dir)).is_dir():
        raise ConfigError(f'{_expected(spec.data_dir)}; it is not a folder.')
    return ImageFolder(spec)


class _Layout:
    """Sorts images into splits and classes."""

    def __init__(self, spec: FolderSpec, root: str, images: Sequence[File]):
        self.notes: list[str] = []
        self.outside: list[str] = []
        self._root, self._spec = root, spec
        self._trained, self._wanted = _bases(spec.train_split)[0], _bases(spec.eval_split)[0]
        self._names = dict(_NAMES)
        self._names['train'] += (self._trained.lower(),)
        if self._wanted in _NAMES['validation']:
            self._names.setdefault(self._wanted, _NAMES['validation'])
        depth = 2 if self._has_splits(images) else 1
        found: dict[str, list[ImageFile]] = defaultdict(list)
        for file in images:
            if len(file.parts) <= depth:
                self.outside.append(file.name)
            else:
                split = file.parts[0] if depth == 2 else 'train'
                path = os.path.join(self._root, *file.parts)
                image = ImageFile(file.name, path, class_name(file.parts[depth - 1]))
                found[split].append(image)
        self.splits = {split: _shuffled(split, found[split]) for split in sorted(found)}
        if self.splits:
            self._name_splits()
            self._advise(depth)

    def _has_splits(self, images: Sequence[File]) -> bool:
        """Whether a folder named for training holds folders of images, rather than images."""
        names = self._names['train']
        below = [f for f in images if len(f.parts) > 1 and f.parts[0].lower() in names]
        return sum(len(f.parts) > 2 for f in below) > len(below) / 2

    def _name_splits(self) -> None:
        """Adds the splits that the config names, and holds images out if need be."""
        folders = {split.lower(): split for split in reversed(self.splits)}
        for name, candidates in self._names.items():
            folder = next((folders[c] for c in candidates if c in folders), None)
            if folder is None:
                continue
            self.splits.setdefault(name, self.splits[folder])
            if name == self._wanted != 'test' and folder in (folders.get(n) for n in _TEST):
                self.notes.append(f'No folder of validation images: {folder}/ is evaluated.')
        missing = self._wanted not in self.splits and self._wanted in _NAMES['validation']
        if missing and self._trained in self.splits:
            self._hold_out()

    def _hold_out(self) -> None:
        share, seed = self._spec.validation_share, self._spec.split_seed
        train, validation = hold_out(self.splits[self._trained], share, seed)
        self.splits['train'] = self.splits[self._trained] = _shuffled('train', train)
        self.splits['validation'] = _shuffled('validation', validation)
        self.splits[self._wanted] = self.splits['validation']
        self.notes.append(
            f'No folder of validation images: {len(validation):,} of '
            f'{len(train) + len(validation):,} are held out, {100 * share:.4g} % of each class '
            '(config.dataset.validation_share), chosen by file names and '
            f'config.dataset.split_seed={seed}.'
        )

    def _advise(self, depth: int) -> None:
        files = [file for split in self.splits.values() for file in split]
        names = {file.class_name for file in files}
        if depth == 1 and len(names) == 1 and all(file.name.count('/') > 1 for file in files):
            above = os.path.join(self._root, files[0].name.partition('/')[0])
            self.notes.append(
                'All images are in folders below one class. If those are the classes, use '
                f'--config.dataset.data_dir={printable(above)}'
            )


def hold_out(
    files: Sequence[ImageFile], share: float, seed: int
) -> tuple[list[ImageFile], list[ImageFile]]:
    """Splits `files` into training and validation images, class by class.

    A class of n images gives round(share * n) of them, at least one and at most n - 1: those whose
    names have the lowest hashes. Adding or removing a file moves at most one other.
    """
    classes: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        classes[file.class_name].append(file)
    train, validation = [], []
    for inside in classes.values():
        inside.sort(key=lambda file: _hash(file.name, seed))
        number = min(max(1, round(share * len(inside))), len(inside) - 1)
        validation += inside[:number]
        train += inside[number:]
    return train, validation


def _hash(name: str, seed: int) -> bytes:
    text = unicodedata.normalize('NFC', name).encode(errors='surrogateescape')
    return hashlib.blake2b(text, key=str(seed).encode()).digest()


def _shuffled(split: str, files: Sequence[ImageFile]) -> list[ImageFile]:
    """The order of tfds.ImageFolder."""
    files = sorted(files, key=lambda file: (file.class_name, file.path))
    random.Random(split).shuffle(files)
    return files


def _bases(split: str) -> list[str]:
    """The names of 'train[:90%]+more': ['train', 'more']."""
    return [part.partition('[')[0].strip() for part in split.split('+')]


def _no_images(folder: str, left_out: Mapping[str, Sequence[str]]) -> str:
    found = [f'{why}, {len(files):,} ({printable(files[0])})' for why, files in left_out.items()]
    return f'{_expected(folder)}; it holds none{": " if found else ""}{"; ".join(found)}.'


def _expected(folder: str | None) -> str:
    return (
        f'config.dataset.data_dir={printable(str(folder))} must hold images as CLASS/NAME.jpg or '
        'SPLIT/CLASS/NAME.jpg'
    )
