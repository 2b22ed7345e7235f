"""NeuroMask against other explanations and controls, after Alzantot et al. 2019."""
