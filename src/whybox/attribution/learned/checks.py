"""What L2X promises of its selections, and how it is known that a selector has learned nothing."""

from collections.abc import Mapping

import torch
from torch import Tensor

from whybox.core.method import Check

# What is measured on the samples held out, and told with every answer.
MEASURED = ("accuracy", "random_accuracy", "read_accuracy", "information_kept")


def selection_checks(state: Mapping[str, Tensor], lost: Tensor) -> tuple[Check, ...]:
    """Whether this selection keeps each prediction, and whether the selector has learned anything."""
    found = {name: float(state[name]) for name in (*MEASURED, "standard_error")}
    better = found["accuracy"] - found["random_accuracy"]
    of_all = torch.ones(len(lost), dtype=torch.float64)
    return (
        Check(
            "class lost on the selection",
            lost.double(),
            0.0,
            "Whether the model itself predicts another class when it sees the selected regions alone.",
        ),
        Check(
            "information lost by the selection",
            of_all * (1 - found["information_kept"]),
            0.5,
            "The share of what inputs tell of the model's answer that cannot be read from the selected regions, for "
            "samples held out when it was fitted. Near 1 the selector has learned nothing, and its order is chance.",
        ),
        Check(
            "no better than regions at random",
            of_all * (2 * found["standard_error"] - better),
            0.0,
            "For samples held out, by how much more often the model keeps its class on the selection than on as many "
            "regions at random; two standard errors of this, less this. Above 0, what is selected says little to the "
            "model itself.",
        ),
        Check(
            "read by the second net alone",
            of_all * (found["read_accuracy"] - found["accuracy"]),
            0.1,
            "For samples held out, by how much more often the second net tells the model's class from the selection "
            "than the model itself does. Then the selector tells it by what it selects, not by what is there; or the "
            "model is lost where so much is hidden.",
        ),
        Check(
            "one class in all that was learned from",
            of_all * float(state["one_class"]),
            0.0,
            "Whether the model predicted the same class for all training inputs. Then it keeps its class whatever is "
            "selected, and that it does so means nothing.",
        ),
    )
