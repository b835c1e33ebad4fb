"""Checkpoints: writing, verifying, reading and retention."""
