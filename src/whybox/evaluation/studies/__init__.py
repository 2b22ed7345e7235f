"""Studies: questions about methods that need training data, a training, or a second model."""
