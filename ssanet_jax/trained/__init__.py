"""A trained run, read from its workdir: predictions, gates, saliency, ablations."""
