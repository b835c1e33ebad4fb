"""Training and evaluation. `steps`, `state`, `losses`, `metrics` and `optimizer` need no TensorFlow."""
