"""TFDS builders of datasets made from local files."""
