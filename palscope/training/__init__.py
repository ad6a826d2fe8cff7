"""Training: the demo's labelled clips, its questions and examples, and the trainer."""
