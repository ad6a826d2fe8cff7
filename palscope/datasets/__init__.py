"""Labelled clips, and the questions and examples that are made of them."""
