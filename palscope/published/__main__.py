"""`python -m palscope.published` prints the table of published classes."""

from palscope.published.table import models_table

print(models_table())
