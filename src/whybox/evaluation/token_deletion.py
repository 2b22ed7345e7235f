"""Token deletion."""

from dataclasses import dataclass, field
from typing import Literal

from whybox.core.errors import InputError
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Along
from whybox.evaluation.case import Case
from whybox.evaluation.metric import Metric, Scores
from whybox.evaluation.removal import Removal, fall


@dataclass(frozen=True)
class TokenDeletion(Metric):
    """Mean over k = 0 … `tokens` of f(x) − f(x with its k most relevant tokens deleted).

    For texts as token numbers (n, t) and as embeddings (n, t, d), and tables (n, columns); a text of fewer tokens is
    deleted whole. With `follows="right"`, averaged over texts that the model gets right, it is the fall of the
    accuracy that the paper plots; for those it gets wrong, the paper deletes the least relevant first and looks for a
    rise, `order="least"`. Details: how many tokens are `removed`, the `score`, `probability`, `right` and `relative`
    to the start at each, (n, tokens + 1).
    Cost: `tokens` forwards per sample, twice that with the order "both", and one for the sample itself.
    Limits: a text with words missing is none that the model was trained on; padding is deleted like any token.
    Source: Arras, Horn, Montavon, Müller & Samek 2017, PLOS ONE 12(8) e0181142.

    Args:
        tokens: how many are deleted at most, one at a time.
        infill: what replaces a token: Constant(number of the mask token) for token numbers, Zero() for embeddings.
        order: "most" relevant first, "least", "random", or "both": the area between the curves of least and most.
        follows: f: the "probability" of the target's class, its "score", or whether it is the predicted one, "right".
    """

    tokens: int = 10
    infill: Infill = field(default_factory=Zero)
    order: Literal["most", "least", "random", "both"] = "most"
    follows: Literal["probability", "score", "right"] = "probability"

    family = "faithfulness"
    higher_is_better = True

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise InputError(f"at least one token is deleted, not {self.tokens}")

    def measure(self, case: Case) -> Scores:
        removal = Removal(Along(1), self.infill, levels=self.tokens, most=self.tokens)
        return fall(case, removal, self.order, self.follows)
