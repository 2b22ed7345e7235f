"""Trust checks with known answers: models of which it is known what they go by, and methods that should show it."""

PARTS = (
    "backdoor",
    "clever_hans",
    "distractors",
    "bam",
    "input_invariance",
    "parameter_randomisation",
    "data_randomisation",
    "roar",
    "mosaic",
)
