"""Change: what would have to change in an input for two classes to tie, as a contrast tells it, and its figure."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.core.target import class_scores
from whybox.core.tree import as_tuple
from whybox.plot.picture import picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Change:
    """One sample of a contrast in a latent space (`CDeepEx`, `XGEM`).

    Attributes:
        true, probe: the classes that are to tie.
        status: what has become of the search, in the method's words.
        found: whether there is a contrast; if not, what would show it is NaN.
        contrast: the input at which they tie (*features).
        added: by position, what is to be added (above zero) or removed (below): the relevance with its sign turned.
        before, after: the probability of every class for the input and for the contrast (classes,).
        distance: ‖z_e − z0‖.
        path: the probabilities of the two in each iteration of the search (iterations, 2).
        film: the way from the input to the contrast, and the probabilities there; None where it was not kept.
    """

    true: int
    probe: int
    status: str
    found: bool
    contrast: Tensor
    added: Tensor
    before: Tensor
    after: Tensor
    distance: float
    path: Tensor
    film: tuple[Tensor, Tensor] | None


def is_change(explanation: Explanation) -> bool:
    """Whether an explanation is a contrast in a latent space."""
    return "contrast_image" in explanation.details


def change_of(explanation: Explanation, sample: int) -> Change | None:
    """One sample of a contrast in a latent space; None for an explanation of another kind."""
    if not is_change(explanation):
        return None
    details = explanation.details
    after = details["all_probabilities"][sample]
    path = details["trajectory"][sample]
    film = (details["film"][sample], details["film_probabilities"][sample]) if "film" in details else None
    true, probe = details["classes"][sample].tolist()
    return Change(
        true=true,
        probe=probe,
        status=details["statuses"][int(details["status"][sample])],
        found=not bool(after.isnan().any()),
        contrast=details["contrast_image"][sample],
        added=-explanation.by_position()[sample],
        before=class_scores(explanation.outputs[sample : sample + 1]).double().softmax(1)[0],
        after=after,
        distance=float(details["distance"][sample]),
        path=path[~path.isnan().any(1)],
        film=film,
    )


def draw_picture_change(figure: Any, change: Change, explanation: Explanation, names: tuple[str, str]) -> "Axes":
    """Draw the input, the contrast, and the way of the two probabilities; what is left is the axes for the change."""
    axes = figure.subplots(1, 4, width_ratios=(1, 1, 1.35, 1.35))
    shown = (as_tuple(explanation.inputs)[0][0], torch.nan_to_num(change.contrast))
    for ax, x, title in zip(axes, shown, ("what the model saw", f"{names[0]} and {names[1]} tie"), strict=False):
        ax.set_title(title if change.found or ax is axes[0] else "not found", fontsize="small")
        ax.imshow(picture(x, explanation.domains[0]), interpolation="nearest")
        ax.set_axis_off()
    axes[2].set_title("red: to be added\nblue: to be removed", fontsize="small")
    for line, name, style in zip(change.path.T, names, ("-", "--"), strict=True):
        axes[3].plot(range(len(line)), line.tolist(), style, color="0.2", linewidth=1.2, label=name)
    axes[3].set_title("the search", fontsize="small")
    axes[3].set_xlabel("iteration", fontsize="small")
    axes[3].set_ylabel("probability", fontsize="small")
    axes[3].set_ylim(0, 1)
    axes[3].tick_params(labelsize="small")
    axes[3].legend(fontsize="small", frameon=False)
    axes[3].set_box_aspect(1)
    return axes[2]  # type: ignore[no-any-return]
