"""Patterns, the study of Kindermans et al. 2017: signal and distractor, the quality of signals, image degradation."""
