"""Training and evaluation. `steps`, and the modules it imports, do not need TensorFlow."""
