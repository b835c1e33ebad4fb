"""TFDS builders of data sets made from local files."""
