"""Running a measure over many clips, resumably, and recording how results were made."""
