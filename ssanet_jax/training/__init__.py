"""Training and evaluation. `steps` and what it imports need neither data nor checkpoints."""
