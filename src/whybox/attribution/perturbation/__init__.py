"""One engine for every method that changes the input."""
