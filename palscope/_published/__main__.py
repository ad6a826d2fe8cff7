"""`python -m palscope._published` prints the table of published classes."""

from palscope._published.table import models_table

print(models_table())
