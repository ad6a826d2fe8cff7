"""Public benchmarks: how each one's questions are read, asked and scored; one file a benchmark."""
