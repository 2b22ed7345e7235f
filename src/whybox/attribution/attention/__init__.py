"""Methods that read a model's attention: how much each token looks at which."""
