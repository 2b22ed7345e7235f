"""L2X: a net that learns which few features of each input tell most about the model's answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from whybox.attribution.learned.answers import check_varied, distribution, entropy
from whybox.attribution.learned.checks import MEASURED, selection_checks
from whybox.attribution.learned.nets import Approximator, Layout, Selector
from whybox.attribution.learned.training import minibatches, read
from whybox.attribution.perturbation.engine import Engine, ask
from whybox.attribution.perturbation.partition import Partition, position_axes, usual
from whybox.attribution.perturbation.uniform import uniform
from whybox.core.block import Block
from whybox.core.errors import InputError, ModelError
from whybox.core.method import Attribution, Method, Taxonomy
from whybox.core.model import Model
from whybox.core.reference import Infill, Zero
from whybox.core.regions import Grid, Regions
from whybox.core.start import check_inputs
from whybox.core.target import Logit
from whybox.core.task import Task, noise_keys
from whybox.core.tree import Inputs

# A picture is divided into so many patches along each axis: 4 × 4 pixels of MNIST, as in the paper.
PATCHES = 7
# The share of the samples that are not learned from, at least LEAST and at most MOST: how good the selection is there.
HELD_OUT = 0.1
LEAST, MOST = 10, 1000
# Rows that pass the selector at once, and rows that are filled at once.
AT_ONCE = 256
# So many inputs are kept by which the model is known again, if its probabilities there are the same up to SAME.
WITNESSES, SAME = 3, 0.01
# One step in so many is added for the second net alone, to read the final selection as well as it can.
FINAL = 4
# Before the names of the selector's weights; what else is kept are facts.
_NET = "selector."


@dataclass(frozen=True)
class L2X(Method):
    """Relevance R = softmax of a selector net's scores over the regions of an input: the odds of being selected.

    `fit(model, loader)` learns the selector together with a second net q, so that the k regions that it selects tell
    as much as they can of the model's answer: max E log q(P(Y|x), V ⊙ x), V the maximum of k draws from the Concrete
    distribution of the selector's scores. The model is asked for its answers to the training inputs only, once, and
    then for those on the kept features of the samples held out. Not negative, sums to 1 over the regions; it is the
    same for every target, for it shows what the answer as a whole depends on. Only the order has a meaning of its own.
    Details: `selected`, the k first regions as a mask; `kept_probability`, what the model gives its own predicted class
    when it sees these alone, the rest as in `infill`; `validation`, of samples held out: the `accuracy` of the model
    itself on the selection (how often it keeps its class), the `random_accuracy` on k regions at random, the
    `read_accuracy` of q, and the `information_kept`: the share of what the input tells of the model's answer that q
    reads from the selection.
    Cost: to fit, a forward pass for each training input, `steps` of the two nets, and two passes for each of at most
    1,000 samples held out; then two forwards for each input, and three by which the model is known again. The training
    inputs are held in memory.
    Limits: the selector may tell q the answer by what it selects rather than by what is there (Jethani et al. 2021,
    arXiv 2103.01890): then the selection is wrong and q is right; a check compares q with the model itself. k is the
    same for all inputs. Another seed gives another selector. It explains inputs like those that it was fitted to, of
    their shape. The outputs are read as scores of classes, or as their probabilities: a regression has none.
    Source: Chen, Song, Wainwright & Jordan 2018, arXiv 1802.07814.

    Args:
        k: how many regions are selected.
        regions: what is selected as one, the same in all inputs; None for columns, tokens, 7 × 7 patches of a picture,
            32 parts of a series and the frames of a video.
        infill: what stands where nothing is selected, for q and for the model.
        temperature: of the Concrete distribution, τ; it falls to this from 1 in the first half of the steps.
        steps: how many to learn.
        batch: the samples in each step.
        rate: the learning rate of Adam.
    """

    k: int = 4
    regions: Regions | None = None
    infill: Infill = field(default_factory=Zero)
    temperature: float = 0.1
    steps: int = 3000
    batch: int = 128
    rate: float = 1e-3

    taxonomy = Taxonomy(shows="regions", needs="outputs", relation="proxy", trains=True)

    def __post_init__(self) -> None:
        whole = all(isinstance(count, int) and count >= 1 for count in (self.k, self.steps, self.batch))
        if not whole or not (0 < self.temperature < math.inf and 0 < self.rate < math.inf):
            raise InputError(
                "L2X needs whole numbers k, steps and batch ≥ 1, and finite temperature and rate > 0, not "
                f"{self.k}, {self.steps}, {self.batch}, {self.temperature}, {self.rate}"
            )

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """The selector's weights, and how good its selection is for samples held out."""
        with torch.inference_mode(False), torch.enable_grad():
            inputs, _ = read(data)
            own = model.reference_tensor()
            inputs = inputs if own is None else inputs.to(own.device)
            if not inputs.is_floating_point() and int(inputs.min()) < 0:
                raise InputError(
                    f"tokens are numbers from 0, not {int(inputs.min())}; make a table of numbers .float()"
                )
            check_inputs(inputs, model, differentiable=False)
            task = Task(model, inputs, Logit(0), noise_keys(seed, len(inputs)), progress=progress)
            vocabulary = 0 if inputs.is_floating_point() else int(inputs.max()) + 1
            layout = self._layout(_some(task, torch.arange(min(2, len(inputs)))), vocabulary)
            if len(inputs) < 2 * LEAST:
                raise InputError(f"L2X needs at least {2 * LEAST} inputs to learn from, not {len(inputs)}")
            with torch.no_grad():
                answers = distribution(task.map(task.output, inputs, gradient=False))
            check_varied(answers)
            order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(seed % 2**63))
            held = order[: min(max(round(HELD_OUT * len(order)), LEAST), MOST)]
            selector, approximator = self._learned(task, layout, answers, order[len(held) :], seed)
            with torch.no_grad():
                facts = self._validated(_some(task, held), answers[held], selector, approximator)
        one_class = torch.tensor(len(answers.argmax(1).unique()) == 1)
        weights = {f"{_NET}{name}": value.cpu() for name, value in selector.state_dict().items()}
        shown = {"witnesses": inputs[held[:WITNESSES]].cpu(), "testimony": answers[held[:WITNESSES]]}
        return {**weights, **facts, **shown, "one_class": one_class}

    def attribute(self, task: Task) -> Attribution:
        state = task.state
        if state is None:
            raise InputError(
                "L2X learns before it explains: fitted = L2X(…).fit(model, loader), then fitted(model, inputs)"
            )
        x = _one_input(task)
        known = state["witnesses"]
        if x.shape[1:] != known.shape[1:] or x.is_floating_point() != known.is_floating_point():
            raise InputError(
                f"fitted to inputs of shape {tuple(known.shape[1:])} and {known.dtype}, but asked to explain "
                f"{tuple(x.shape[1:])} of {x.dtype}"
            )
        self._check_model(task, known.to(x), state["testimony"])
        tokens = state.get(f"{_NET}read.embedding.weight")
        selector = Selector(self._layout(task, 0 if tokens is None else len(tokens) - 1), x)
        selector.load_state_dict({k.removeprefix(_NET): v for k, v in state.items() if k.startswith(_NET)})
        with torch.no_grad():
            scores = _scores(selector.to(x.device), x)
        partition = self._partition(task)
        kept = _highest(scores, self.k)
        whole = torch.ones_like(kept)
        answers = distribution(self._asked(task, torch.stack((whole, kept), 1))).view(len(x), 2, -1)
        predicted = answers[:, 0].argmax(1)
        relevance = partition.spread(scores.softmax(1))
        details = {
            "selected": partition.masks(kept, torch.arange(len(x))),
            "kept_probability": answers[:, 1].gather(1, predicted[:, None])[:, 0],
            "validation": {name: float(state[name]) for name in MEASURED},
        }
        return Attribution(relevance, details, selection_checks(state, answers[:, 1].argmax(1) != predicted))

    def _check_model(self, task: Task, witnesses: Tensor, testimony: Tensor) -> None:
        """Raise ModelError where this is not the model that the selector has learned from."""
        witnessing = Task(task.model, witnesses, task.target, task.keys[:1] * len(witnesses), cost=task.cost)
        with torch.no_grad():
            now = distribution(witnessing.map(witnessing.output, witnesses, gradient=False))
        if now.shape != testimony.shape or float((now - testimony).abs().max()) > SAME:
            raise ModelError(
                "L2X explains the model that it was fitted to, and this one answers otherwise to the same inputs; fit "
                "it to this one"
            )

    def _regions(self, task: Task) -> Regions:
        if self.regions is not None:
            return self.regions
        axes = position_axes(task)[0]
        return Grid(PATCHES) if len(axes) == 2 else usual(_one_input(task), axes)

    def _partition(self, task: Task) -> Partition:
        return Partition.of(task, self._regions(task))

    def _layout(self, task: Task, vocabulary: int) -> Layout:
        layout = Layout.of(_one_input(task), self._partition(task).labels[0], vocabulary)
        if self.k >= layout.count:
            raise InputError(
                f"k = {self.k} selects all of the {layout.count} regions of an input; give a smaller k, or divide into "
                "more regions"
            )
        return layout

    def _learned(
        self, task: Task, layout: Layout, answers: Tensor, own: Tensor, seed: int
    ) -> tuple[Selector, Approximator]:
        """Both nets, from the samples `own`; then the second one goes on with what the first selects in the end."""
        x = _one_input(task)
        torch.default_generator.manual_seed(seed % 2**63)  # the loader and the model may have drawn from it
        selector = Selector(layout, x[own]).to(x.device)
        approximator = Approximator(layout, x[own], answers.shape[1]).to(x.device)
        filled, keys = self._filled(task), torch.tensor(task.keys)

        def descend(nets: tuple[nn.Module, ...], steps: int, choose: Callable[[Tensor, int], Tensor]) -> None:
            adam = torch.optim.Adam([p for net in nets for p in net.parameters()], self.rate)
            for step, places in minibatches(len(own), batch=self.batch, steps=steps, seed=seed, progress=task.progress):
                rows = own[places]
                read = approximator(x[rows], filled[rows], choose(rows, step))
                loss = nn.functional.cross_entropy(read, answers[rows].to(x.device))
                if not bool(torch.isfinite(loss)):
                    raise ModelError(f"the training of L2X diverged in step {step}; lower its rate from {self.rate}")
                adam.zero_grad()
                loss.backward()
                adam.step()

        def draw(rows: Tensor, step: int) -> Tensor:
            noise = uniform(keys[rows], torch.full_like(rows, step), self.k * layout.count)
            # From 1 down to the temperature in the first half: a column that tells nothing without another one, as in
            # an exclusive or, is found while everything still shows a little.
            warmth = max(1 - 2 * step / self.steps, 0.0)
            return self._relaxed(selector(x[rows]), noise, self.temperature ** (1 - warmth))

        descend((selector, approximator), self.steps, draw)
        with torch.no_grad():
            kept = _highest(_scores(selector, x), self.k).to(x.device).float()
        descend((approximator,), max(self.steps // FINAL, 1), lambda rows, _: kept[rows])
        return selector, approximator

    def _relaxed(self, scores: Tensor, noise: Tensor, temperature: float) -> Tensor:
        """The maximum of k draws from the Concrete distribution of the scores (n, count), with uniform noise."""
        gumbel = -(-noise.clamp(1e-15, 1 - 1e-15).log()).log()
        draws = scores[:, None] + gumbel.view(len(scores), self.k, -1).to(scores)
        return (draws / temperature).softmax(2).amax(1)

    def _filled(self, task: Task) -> Tensor:
        """Every input replaced whole."""
        parts = torch.arange(task.size).split(AT_ONCE)
        filled = [Block(task, rows, torch.zeros_like(rows)).fill(self.infill) for rows in parts]
        return torch.cat([part for part in filled if isinstance(part, Tensor)])

    def _validated(
        self, task: Task, answers: Tensor, selector: Selector, approximator: Approximator
    ) -> dict[str, Tensor]:
        """How good the selection is for these samples."""
        x = _one_input(task)
        scores = _scores(selector, x)
        kept = _highest(scores, self.k)
        at_random = _highest(uniform(torch.tensor(task.keys), torch.zeros(task.size).long(), kept.shape[1], 1), self.k)
        predicted = answers.argmax(1)[:, None]
        same = distribution(self._asked(task, torch.stack((kept, at_random), 1))).argmax(1).view(-1, 2) == predicted
        filled = self._filled(task)
        read = torch.cat(
            [
                approximator(x[rows], filled[rows], kept[rows].to(x.device).float()).log_softmax(1).cpu()
                for rows in torch.arange(len(x)).split(AT_ONCE)
            ]
        )
        whole, left = entropy(answers.mean(0)), entropy(answers).mean()
        missing = -(answers * read).sum(1).mean()
        better = same[:, 0].double() - same[:, 1].double()
        return {
            "accuracy": same[:, 0].double().mean(),
            "random_accuracy": same[:, 1].double().mean(),
            "read_accuracy": (read.argmax(1) == predicted[:, 0]).double().mean(),
            "standard_error": better.std() / len(better) ** 0.5,
            "information_kept": ((whole - missing) / (whole - left)).double(),
        }

    def _asked(self, task: Task, kept: Tensor) -> Tensor:
        """The model's outputs (n·v, …) on these regions of each sample alone, kept (n, v, count)."""
        partition = self._partition(task)
        engine = Engine(task, self.infill, partition)

        def make(sample: Tensor, number: Tensor) -> tuple[Inputs, None]:
            masks = partition.masks(kept[sample, number], sample)
            return engine.hide(masks, Block(task, sample, number)), None

        chunks = ask(task, kept.shape[1], make, task.output)
        return torch.cat([chunk.score for chunk in chunks])


def _one_input(task: Task) -> Tensor:
    if task.at is not None or isinstance(task.inputs, tuple):
        raise InputError("L2X explains the inputs of models with a single one, and nothing inside the model")
    return task.inputs


def _some(task: Task, rows: Tensor) -> Task:
    """The task of these samples, each with its own noise."""
    x = _one_input(task)
    return Task(task.model, x[rows], task.target, tuple(task.keys[i] for i in rows.tolist()), progress=task.progress)


def _scores(selector: Selector, x: Tensor) -> Tensor:
    """The selector's scores (n, count), on the CPU."""
    return torch.cat([selector(part) for part in x.split(AT_ONCE)]).cpu()


def _highest(scores: Tensor, k: int) -> Tensor:
    """Where the k highest scores of each row are, (n, count)."""
    return torch.zeros_like(scores, dtype=torch.bool).scatter(1, scores.topk(k).indices, True)
