"""Makes small datasets in the formats of large ones."""

import gzip
import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

WNIDS = ('n01440764', 'n01443537', 'n01484850', 'n01491361')


def photograph(rng: np.random.Generator, *, mode: str = 'RGB', kind: str = 'JPEG') -> bytes:
    """Encodes a random crop of scikit-learn's two photographs, about 100 pixels wide."""
    photo = Image.fromarray(load_sample_images().images[rng.integers(2)])
    height, width = rng.integers(80, 121, size=2)
    left, top = rng.integers(0, photo.width - width), rng.integers(0, photo.height - height)
    part = photo.crop((left, top, left + width, top + height)).convert(mode)
    buffer = io.BytesIO()
    part.save(buffer, kind, **({'quality': 92} if kind == 'JPEG' else {}))
    return buffer.getvalue()


def bad_files() -> dict[str, bytes]:
    """Undecodable image files, each damaged in a different way."""
    rng = np.random.default_rng(1)
    jpeg, png = photograph(rng), photograph(rng, kind='PNG')
    header = png[12:16] + struct.pack('>II', 60_000, 60_000) + png[24:29]
    huge = png[:12] + header + struct.pack('>I', zlib.crc32(header)) + png[33:]
    return {
        'empty': b'',
        'truncated': jpeg[: len(jpeg) // 2],
        'truncated_png': png[: len(png) // 2],
        'header_only': jpeg[:30],
        'text': b'this is no image',
        'huge': huge,
    }


def image_folder(folder: Path, *, per_class: int = 9, splits: tuple = ('train', 'validation')):
    """SPLIT/CLASS/NAME.jpg with three classes of different hue."""
    rng = np.random.default_rng(2)
    for split in splits:
        for label, name in enumerate(('ash', 'beech', 'cedar')):
            (folder / split / name).mkdir(parents=True)
            for i in range(per_class):
                image = rng.integers(0, 60, (48, 56, 3), np.uint8)
                image[..., label] += 150
                Image.fromarray(image).save(folder / split / name / f'{i}.jpg', quality=95)
    return folder


def imagenet_archives(
    folder: Path, *, train_per_class: int = 12, num_val: int = 21, bad: bool = False
) -> None:
    """ILSVRC2012_img_{train,val,test}.tar as ImageNet has them: class tars inside the train tar.

    As in the real set, one file named .JPEG is a PNG, one is CMYK and one is gray. With `bad`,
    some more cannot be decoded.
    """
    broken = bad_files() if bad else {}
    rng = np.random.default_rng(0)
    odd = {(0, 0): {'kind': 'PNG'}, (1, 0): {'mode': 'CMYK'}, (2, 0): {'mode': 'L'}}
    classes = {}
    for c, wnid in enumerate(WNIDS):
        files = {
            f'{wnid}_{i}.JPEG': photograph(rng, **odd.get((c, i), {}))
            for i in range(train_per_class)
        }
        if c == 0:
            files |= {f'{wnid}_{name}.JPEG': content for name, content in broken.items()}
        classes[f'{wnid}.tar'] = tar_bytes(files)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'ILSVRC2012_img_train.tar').write_bytes(tar_bytes(classes))
    for split, number in (('val', num_val), ('test', 3)):
        content = [photograph(rng) for _ in range(number)] + list(broken.values())
        files = {f'ILSVRC2012_{split}_{i + 1:08}.JPEG': x for i, x in enumerate(content)}
        (folder / f'ILSVRC2012_img_{split}.tar').write_bytes(tar_bytes(files))


def tar_bytes(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def idx_gz(array: np.ndarray) -> bytes:
    """A uint8 array as a gzipped idx file."""
    header = b'\0\0\x08' + bytes([array.ndim]) + struct.pack(f'>{array.ndim}i', *array.shape)
    return gzip.compress(header + array.tobytes(), mtime=0)


def fashion_mnist_files(folder: Path, *, num_train: int = 40, num_test: int = 10) -> dict:
    """The four files of Fashion-MNIST with random content, which is returned by split."""
    from ssanet_jax.data.datasets.fashion_mnist import FILES

    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    content = {}
    for split, number in (('train', num_train), ('test', num_test)):
        images = rng.integers(0, 256, size=(number, 28, 28), dtype=np.uint8)
        labels = rng.integers(0, 10, size=number, dtype=np.uint8)
        for name, array in zip(FILES[split], (images, labels), strict=True):
            (folder / name).write_bytes(idx_gz(array))
        content[split] = images, labels
    return content


def cifar_files(folder: Path, name: str, *, per_file: int = 24) -> dict:
    """CIFAR-10's or -100's binary files with random content, which is returned by split."""
    rng = np.random.default_rng(0)
    if name == 'cifar10':
        folder, classes, label_bytes = folder / 'cifar-10-batches-bin', 10, 1
        files = {'train': [f'data_batch_{i}.bin' for i in range(1, 6)], 'test': ['test_batch.bin']}
        names = {'batches.meta.txt': 10}
    else:
        folder, classes, label_bytes = folder / 'cifar-100-binary', 100, 2
        files = {'train': ['train.bin'], 'test': ['test.bin']}
        names = {'coarse_label_names.txt': 20, 'fine_label_names.txt': 100}
    folder.mkdir(parents=True)
    for file, number in names.items():
        (folder / file).write_text(''.join(f'class {i}\n' for i in range(number)))
    content = {}
    for split, parts in files.items():
        rows = []
        for part in parts:
            images = rng.integers(0, 256, size=(per_file, 32, 32, 3), dtype=np.uint8)
            labels = rng.integers(0, classes, size=per_file, dtype=np.uint8)
            coarse = labels[:, None] // 5 if label_bytes == 2 else labels[:, None][:, :0]
            planes = images.transpose(0, 3, 1, 2).reshape(per_file, -1)  # color by color
            records = np.concatenate([coarse, labels[:, None], planes], axis=1)
            (folder / part).write_bytes(records.astype(np.uint8).tobytes())
            rows += [
                (bytes(image), int(label)) for image, label in zip(images, labels, strict=True)
            ]
        content[split] = rows
    return content
