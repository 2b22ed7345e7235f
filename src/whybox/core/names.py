"""The names of all methods, metrics and values, and where each is: plain tables, readable without torch."""

METHODS = {
    "gradient": "whybox.attribution.gradient:Gradient",
    "sensitivity_analysis": "whybox.attribution.gradient:SensitivityAnalysis",
    "input_x_gradient": "whybox.attribution.gradient:InputXGradient",
    "smooth_grad": "whybox.attribution.smooth:SmoothGrad",
    "var_grad": "whybox.attribution.smooth:VarGrad",
    "smooth_grad_squared": "whybox.attribution.smooth:SmoothGradSquared",
    "integrated_gradients": "whybox.attribution.path:IntegratedGradients",
    "expected_gradients": "whybox.attribution.path:ExpectedGradients",
    "cam": "whybox.attribution.cam:CAM",
    "grad_cam": "whybox.attribution.cam:GradCAM",
    "lrp": "whybox.attribution.backprop.lrp:LRP",
    "deep_taylor": "whybox.attribution.backprop.deep_taylor:DeepTaylor",
    "deep_lift": "whybox.attribution.backprop.deep_lift:DeepLIFT",
    "guided_backprop": "whybox.attribution.backprop.gated:GuidedBackprop",
    "deconvnet": "whybox.attribution.backprop.gated:DeconvNet",
    "salinet": "whybox.attribution.backprop.gated:SaliNet",
    "desalinet": "whybox.attribution.backprop.gated:DeSaLiNet",
    "guided_grad_cam": "whybox.attribution.backprop.gated:GuidedGradCAM",
    "patternnet": "whybox.attribution.backprop.pattern_net:PatternNet",
    "pattern_attribution": "whybox.attribution.backprop.pattern_net:PatternAttribution",
    "attention_rollout": "whybox.attribution.attention.rollout:AttentionRollout",
    "attention_flow": "whybox.attribution.attention.flow:AttentionFlow",
    "generic_attention": "whybox.attribution.attention.generic:GenericAttention",
    "occlusion": "whybox.attribution.perturbation.occlusion:Occlusion",
    "prediction_difference": "whybox.attribution.perturbation.prediction_difference:PredictionDifference",
    "rise": "whybox.attribution.perturbation.rise:RISE",
    "lime": "whybox.attribution.perturbation.lime:LIME",
    "kernel_shap": "whybox.attribution.perturbation.kernel_shap:KernelSHAP",
    "shapley_sampling": "whybox.attribution.perturbation.shapley_sampling:ShapleySampling",
    "neuro_mask": "whybox.attribution.masks.neuromask:NeuroMask",
    "meaningful_perturbation": "whybox.attribution.masks.meaningful_perturbation:MeaningfulPerturbation",
    "invariant_perturbation": "whybox.attribution.masks.invariant_perturbation:InvariantPerturbation",
    "l2x": "whybox.attribution.learned.l2x:L2X",
    "casme": "whybox.attribution.learned.casme:CASME",
    "c_deep_ex": "whybox.contrast.cdeepex:CDeepEx",
    "xgem": "whybox.contrast.xgem:XGEM",
    "weighted_contrast": "whybox.contrast.weighted:WeightedContrast",
}

# Maps that know nothing of the model: methods to compare with, not to explain by.
CONTROLS = {
    name: f"whybox.evaluation.controls:{cls}"
    for name, cls in {
        "random_map": "RandomMap",
        "centre_blob": "CentreBlob",
        "edge_detector": "EdgeDetector",
        "input_magnitude": "InputMagnitude",
    }.items()
}

# In the order in which they are listed: by family.
METRICS = {
    "region_perturbation": "whybox.evaluation.region_perturbation:RegionPerturbation",
    "deletion": "whybox.evaluation.deletion:Deletion",
    "insertion": "whybox.evaluation.deletion:Insertion",
    "pixel_flipping": "whybox.evaluation.pixel_flipping:PixelFlipping",
    "road": "whybox.evaluation.road:ROAD",
    "irof": "whybox.evaluation.irof:IROF",
    "token_deletion": "whybox.evaluation.token_deletion:TokenDeletion",
    "faithfulness_correlation": "whybox.evaluation.random_subsets:FaithfulnessCorrelation",
    "faithfulness_estimate": "whybox.evaluation.one_by_one:FaithfulnessEstimate",
    "infidelity": "whybox.evaluation.infidelity:Infidelity",
    "sensitivity_n": "whybox.evaluation.random_subsets:SensitivityN",
    "monotonicity_correlation": "whybox.evaluation.one_by_one:MonotonicityCorrelation",
    "mu_fidelity": "whybox.evaluation.random_subsets:MuFidelity",
    "average_drop": "whybox.evaluation.average_drop:AverageDrop",
    "average_increase": "whybox.evaluation.average_drop:AverageIncrease",
    "average_gain": "whybox.evaluation.average_drop:AverageGain",
    "max_sensitivity": "whybox.evaluation.sensitivity:MaxSensitivity",
    "average_sensitivity": "whybox.evaluation.sensitivity:AverageSensitivity",
    "local_lipschitz": "whybox.evaluation.sensitivity:LocalLipschitz",
    "relative_input_stability": "whybox.evaluation.relative_stability:RelativeInputStability",
    "relative_output_stability": "whybox.evaluation.relative_stability:RelativeOutputStability",
    "relative_representation_stability": "whybox.evaluation.relative_stability:RelativeRepresentationStability",
    "continuity": "whybox.evaluation.continuity:Continuity",
    "pointing_game": "whybox.evaluation.localisation:PointingGame",
    "relevance_mass": "whybox.evaluation.localisation:RelevanceMass",
    "relevance_rank": "whybox.evaluation.localisation:RelevanceRank",
    "energy_in_box": "whybox.evaluation.localisation:EnergyInBox",
    "iou": "whybox.evaluation.localisation:IoU",
    "auc": "whybox.evaluation.localisation:AUC",
    "mosaic": "whybox.evaluation.mosaic:Mosaic",
    "sparseness": "whybox.evaluation.complexity:Sparseness",
    "complexity": "whybox.evaluation.complexity:Complexity",
    "effective_complexity": "whybox.evaluation.complexity:EffectiveComplexity",
    "mprt": "whybox.evaluation.mprt:MPRT",
    "smooth_mprt": "whybox.evaluation.mprt:SmoothMPRT",
    "efficient_mprt": "whybox.evaluation.mprt:EfficientMPRT",
    "random_logit": "whybox.evaluation.random_logit:RandomLogit",
    "completeness": "whybox.evaluation.completeness:Completeness",
    "non_sensitivity": "whybox.evaluation.non_sensitivity:NonSensitivity",
    "input_invariance": "whybox.evaluation.input_invariance:InputInvariance",
}

# Questions about methods that need training data, a training, or a second model.
STUDIES = {
    "data_randomisation": "whybox.evaluation.studies.data_randomisation:DataRandomisation",
    "roar": "whybox.evaluation.studies.roar:ROAR",
    "implementation_invariance": "whybox.evaluation.studies.implementation_invariance:ImplementationInvariance",
    "consensus": "whybox.evaluation.studies.consensus:Consensus",
}

# Values that stand in the fields of methods and metrics.
_INFILLS = (
    "Zero",
    "Constant",
    "Mean",
    "Black",
    "Flipped",
    "Blur",
    "Shuffled",
    "Imputed",
    "Sample",
    "UniformNoise",
    "GaussianNoise",
)
_REGIONS = ("Pixels", "Patches", "Grid", "Superpixels", "Along")
VALUES = {name: f"whybox.core.reference:{name}" for name in _INFILLS}
VALUES |= {name: f"whybox.core.regions:{name}" for name in _REGIONS}
VALUES |= {name: f"whybox.attribution.backprop.composites:{name}" for name in ("Composite", "Match")}
VALUES |= {name: f"whybox.attribution.backprop.rules:{name}" for name in ("Group", "Rule")}

# What makes a value by a shorter name: the functions of `whybox.rules`.
_RULES = ("zero", "epsilon", "gamma", "alpha_beta", "z_plus", "flat", "w_squared", "box")
MAKERS = {name: f"whybox.attribution.backprop.rules:{name}" for name in _RULES}
