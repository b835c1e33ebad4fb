"""What a model costs and what it does, without training it."""
