"""Datasets that are read from local files as they are, in the form of TFDS builders."""
