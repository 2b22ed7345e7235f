"""The methods and the controls that are put to the test, by the names in the tables."""

from whybox import (
    LRP,
    CentreBlob,
    EdgeDetector,
    GradCAM,
    GuidedBackprop,
    InputMagnitude,
    InputXGradient,
    IntegratedGradients,
    RandomMap,
    SensitivityAnalysis,
    SmoothGrad,
)

EPSILON = "LRP ε"
INPUT_X_GRADIENT = "input × gradient"
INTEGRATED = "integrated gradients"
GUIDED = "guided backprop"
GRADIENT = "gradient"
SENSITIVITY = "|gradient|"
GRAD_CAM = "GradCAM"
RANDOM = "random map"
EDGES = "edge detector"

# ε = 0.25: with ε → 0 a net of ReLUs and maxima has LRP ε = input × gradient, and the check could not tell them apart.
METHODS = {
    EPSILON: LRP(composite="epsilon", epsilon=0.25),
    "LRP ε, z⁺": LRP(composite="epsilon_plus"),
    INPUT_X_GRADIENT: InputXGradient(),
    INTEGRATED: IntegratedGradients(),
    GUIDED: GuidedBackprop(),
    SENSITIVITY: SensitivityAnalysis(),
    "SmoothGrad": SmoothGrad(of=SensitivityAnalysis()),
    GRAD_CAM: GradCAM(),
}
CONTROLS = {
    RANDOM: RandomMap(),
    "centre blob": CentreBlob(),
    EDGES: EdgeDetector(),
    "input magnitude": InputMagnitude(),
}
EVERYTHING = METHODS | CONTROLS
