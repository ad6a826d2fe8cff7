"""Directions of stored activations: probed, found, erased, and steered along."""
