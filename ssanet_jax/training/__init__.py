"""Training and evaluation; up to and with `steps` without TensorFlow."""
