"""Listings of folders of empty files."""

from pathlib import Path

from ssanet_jax.data.datasets.image_folder import FolderSpec, ImageFolder


def make(root: Path, *names: str) -> Path:
    """Empty files, which are enough for a listing."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def listed(root, *, train='train', evaluation='validation', share=0.2, seed=0) -> ImageFolder:
    return ImageFolder(FolderSpec(str(root), train, evaluation, share, seed))


def names(folder: ImageFolder, split: str) -> set[str]:
    return {file.name for file in folder.files[split]}


def classes(folder: ImageFolder) -> list[str]:
    return folder.info.features['label'].names
