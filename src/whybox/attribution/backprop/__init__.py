"""One engine for every method that changes what backward means: a table from operations to rules."""
