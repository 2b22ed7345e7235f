"""tokens: one relevance for each token of a text; ask: the question behind it, for any method."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError, ModelError, TargetError, nearest
from whybox.core.explanation import Explanation
from whybox.core.guard import guard
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.passage import Passage
from whybox.explaining import explain
from whybox.text.reader import Reader
from whybox.text.reading import encode

logger = logging.getLogger(__name__)

DEFAULT = "lrp"


@dataclass(frozen=True)
class Question:
    """A model and texts, ready for `whybox.explain(model, inputs, …, at=at)` and `whybox.report.collect`.

    Attributes:
        model: from token numbers to one score for each class; of a language model, each token of its vocabulary.
        inputs: the token numbers, (n, t), −1 where a text has ended.
        at: the layer that makes embeddings of token numbers.
        passages: what stands at the positions.
    """

    model: Model
    inputs: Tensor
    at: str
    passages: tuple[Passage, ...]

    def target(self, target: Any) -> Any:
        """A target in which a class, one for all texts or one for each, may be named by its label or its token."""
        if isinstance(target, str):
            return self.index(target)
        if isinstance(target, (list, tuple)) and any(isinstance(one, str) for one in target):
            return [self.index(one) if isinstance(one, str) else one for one in target]
        return target

    def index(self, name: str) -> int:
        """The class of this label; of a language model the token, with or without the space before it."""
        labels = self.model.labels or ()
        if name.removeprefix("-").isdecimal():
            return int(name)
        for wanted in (name, f" {name}"):  # most vocabularies have words with the space before them
            if labels.count(wanted) == 1:
                return labels.index(wanted)
        lowered = [label.lower() for label in labels]
        if lowered.count(name.lower()) == 1:
            return lowered.index(name.lower())
        near = ", ".join(map(repr, nearest(name, labels)))
        raise TargetError(f"there is no class {name!r}" + (f"; near are {near}" if near else ""))


def tokens(
    model: Model | nn.Module,
    tokenizer: Any,
    text: str | Sequence[str],
    method: Method | str = DEFAULT,
    target: Any = None,
    *,
    position: int | None = None,
    seed: int = 0,
    progress: bool = False,
    checks: bool = True,
) -> Explanation:
    """Explain by which tokens a classifier or a language model comes to its answer about a text.

    `print` shows the texts in colour where it is a terminal that they are printed on, a notebook shows them by itself,
    and `.tokens()` gives the numbers.

    Args:
        model: a classifier or a language model of transformers, or any module that takes token numbers (n, t), and
            `attention_mask` if it needs to know the padding, and gives scores for classes, (n, classes), or at every
            position, (n, t, classes).
        tokenizer: its tokenizer; None for that of a Model that has one.
        text: one text or several. Texts of different lengths are filled up and masked; what is longer than the model
            can read is left out, which is warned of and shown.
        method: as in `whybox.explain`. It explains the layer that makes embeddings of token numbers, and a token's
            relevance is the sum over its embedding.
        target: as in `whybox.explain`; classes also by their labels, and the next token as text.
        position: of a model that answers at every position, which answer, from the end where it is negative; None for
            the one at the mask token, where each text holds one, and else the last.
        seed, progress, checks: as in `whybox.explain`.

    Returns:
        the record of the answer, with `passages`; `.by_position()` has one value a token, (n, t).

    Raises:
        InputError: a text is empty, or there is none.
        ModelError: an encoder–decoder model, or one without a layer of embeddings.
        TargetError: there is no such class or token.
    """
    question = ask(model, tokenizer, text, position=position)
    found = explain(
        question.model,
        question.inputs,
        method,
        question.target(target),
        seed=seed,
        progress=progress,
        at=question.at,
        checks=checks,
    )
    return replace(found, passages=question.passages)


def ask(
    model: Model | nn.Module, tokenizer: Any, text: str | Sequence[str], *, position: int | None = None
) -> Question:
    """The question that `tokens` asks; see there."""
    model = Model.wrap(model)
    tokenizer = model.tokenizer if tokenizer is None else tokenizer
    if not callable(tokenizer):
        raise InputError("give the model's tokenizer too: transformers.AutoTokenizer.from_pretrained(…) loads it")
    module, config = model.module, getattr(model.module, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{model.name} is an encoder–decoder model, of which this explains neither half; wrap the one that answers "
            "into a module of its own"
        )
    texts = (text,) if isinstance(text, str) or not isinstance(text, Iterable) else tuple(text)
    numbers, passages = encode(tokenizer, texts, _limit(module, tokenizer))
    cut = [i for i, passage in enumerate(passages) if passage.left_out]
    if cut:
        most = len(passages[cut[0]])
        logger.warning("%s reads %d tokens: the ends of text(s) %s are left out", model.name, most, cut[:5])
    reference = model.reference_tensor()
    numbers = numbers if reference is None else numbers.to(reference.device)
    filler, chunk = _filler(config, tokenizer), model.chunk
    if getattr(config, "pad_token_id", None) is None and type(module).__name__.endswith("ForSequenceClassification"):
        if len(texts) > 1:
            raise InputError(
                "the model needs to know which token is padding to explain several texts: set "
                "model.config.pad_token_id = tokenizer.pad_token_id, or explain them one at a time"
            )
        chunk = 1  # it reads the last token of each, and without padding it cannot tell it in a batch
    mask = getattr(tokenizer, "mask_token_id", None)
    masked = position is None and mask is not None and bool(((numbers == mask).sum(1) == 1).all())
    reader = Reader(module, filler, -1 if position is None else position, mask if masked else None)
    if not reader.masks and len(set(map(len, passages))) > 1:
        logger.warning(
            "%s takes no attention_mask: shorter texts are filled up with token %d, which it may count; explain them "
            "one at a time where it does",
            model.name,
            filler,
        )
    at = _embedding(reader)
    known = getattr(reader.get_submodule(at), "num_embeddings", None)
    if known is not None and int(numbers.max()) >= known:
        raise InputError(
            f"the tokenizer gives token number {int(numbers.max())}, but {model.name} knows {known} tokens only; give "
            "the tokenizer that the model was trained with"
        )
    with guard(reader), torch.no_grad():
        count = reader(numbers[:1]).reshape(-1).numel()
    wrapped = Model(reader, name=model.name, labels=_labels(model, tokenizer, count), chunk=chunk)
    return Question(wrapped, numbers, at, passages)


def _limit(module: nn.Module, tokenizer: Any) -> int | None:
    """How many tokens the model reads at most, where that is known."""
    limits = [getattr(tokenizer, "model_max_length", None)]
    places = getattr(getattr(module, "config", None), "max_position_embeddings", None)
    if isinstance(places, int) and places > 0:
        # RoBERTa and its kin begin to count behind the number of the padding token
        own = [
            part
            for name, part in module.named_modules()
            if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None
        ]
        limits.append(places - own[0].padding_idx - 1 if own and own[0].padding_idx is not None else places)
    known = [limit for limit in limits if isinstance(limit, int) and 0 < limit < 10**9]
    return min(known, default=None)


def _filler(config: Any, tokenizer: Any) -> int:
    """The token number for padding; what it is does not matter to a model that takes a mask."""
    known = (getattr(owner, "pad_token_id", None) for owner in (config, tokenizer))
    return next((number for number in known if number is not None), 0)


def _labels(model: Model, tokenizer: Any, count: int) -> Sequence[str] | None:
    """The names of the classes: the model's own, or the tokens of the vocabulary."""
    named = getattr(getattr(model.module, "config", None), "id2label", None) or {}
    if model.labels is not None and len(model.labels) == count:
        return model.labels
    if len(named) == count:
        return [named[i] for i in range(count)]
    if not len(tokenizer) <= count < 2 * len(tokenizer) + 1000:
        return None
    known = tokenizer.batch_decode([[i] for i in range(len(tokenizer))])
    return [known[i] if i < len(known) and known[i] else f"token {i}" for i in range(count)]


def _embedding(reader: Reader) -> str:
    """The name of the layer that makes embeddings of token numbers."""
    own = getattr(reader.module, "get_input_embeddings", None)
    found = own() if callable(own) else None
    named = reader.named_modules()
    name = next((n for n, part in named if part is found or (found is None and isinstance(part, nn.Embedding))), None)
    if name is None:
        raise ModelError("the model has no layer that makes embeddings of token numbers, a torch.nn.Embedding")
    return str(name)
