"""Measures and explains a model without training it: cost, gates, saliency, calibration."""
