"""Region perturbation of pictures: LRP against sensitivity analysis, after Samek et al. 2017."""
