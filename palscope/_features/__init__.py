"""Activations of whole data sets, and what is learned from them."""
