"""Contrasts of tables: what would have to change in which columns."""
