"""The handwritten digits that ship inside scikit-learn."""

import numpy as np
import tensorflow_datasets as tfds

from ssanet_jax.data.datasets.array_dataset import ArrayDataset


class Digits(ArrayDataset, skip_registration=True):  # type: ignore[call-arg]
    """1,797 gray digits of 8x8, 16 levels scaled to 0..255; 1,437 train, 360 test.

    The split is stratified by class and fixed. Source: UCI's Optical Recognition of
    Handwritten Digits test set, https://archive.ics.uci.edu/dataset/80.
    """

    name = 'digits'
    VERSION = tfds.core.Version('1.0.0')

    def __init__(self) -> None:
        from sklearn import datasets, model_selection

        digits = datasets.load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)
        train, test = model_selection.train_test_split(
            np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0
        )
        splits = {'train': train, 'test': test}
        super().__init__(
            {split: (images[rows], digits.target[rows], rows) for split, rows in splits.items()},
            [str(digit) for digit in range(10)],
        )
