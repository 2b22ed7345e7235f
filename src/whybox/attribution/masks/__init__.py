"""Learned masks: what of the input must be kept, or hidden, found by gradient descent on the mask itself."""
