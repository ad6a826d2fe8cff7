"""Figures from the measures' tables: `attention` (plotly, for screens), `paper` (matplotlib)."""
