"""Trust checks with known answers: models of which it is known what they go by, and methods that should show it."""
