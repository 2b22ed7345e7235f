"""What is measured: the signs of words whose sign is known, and the answer while words are deleted."""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from experiments.sst.nets import UNKNOWN, Vocabulary, read
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import whybox
from whybox.core.reference import Constant
from whybox.core.regions import Along
from whybox.core.start import started
from whybox.evaluation.bootstrap import Interval, intervals
from whybox.evaluation.case import Samples
from whybox.evaluation.controls import RandomMap
from whybox.evaluation.metric import case
from whybox.evaluation.token_deletion import TokenDeletion

FOR = (
    "good", "great", "best", "brilliant", "beautiful", "wonderful", "charming", "enjoyable", "delightful", "excellent",
    "funny", "moving", "powerful", "engaging", "touching", "fascinating", "superb", "hilarious", "fresh",
    "entertaining",
)  # fmt: skip
AGAINST = (
    "bad", "worst", "dull", "boring", "awful", "terrible", "stupid", "mess", "tedious", "lame", "bland", "silly",
    "pointless", "poor", "predictable", "annoying", "waste", "ugly", "clumsy", "flat",
)  # fmt: skip
NEGATIONS = ("not", "n't", "never", "no", "nothing", "without", "hardly", "neither", "nor", "cannot")
REACH = 3  # how many words a negation reaches over
LONGEST, SHORTEST = 5, 10  # words deleted at most, of sentences of so many at least
TAUGHT = 150  # steps of Adam
FAVOURABLE = whybox.Contrast(1, 0)
GROUPS = {
    "words for": (1, lambda words, i: words[i] in FOR and not negated(words, i)),
    "words against": (-1, lambda words, i: words[i] in AGAINST and not negated(words, i)),
    "negations": (-1, lambda words, i: words[i] in NEGATIONS),
    "negations of words for": (-1, lambda words, i: words[i] in NEGATIONS and reaches(words, i, FOR)),
    "negations of words against": (1, lambda words, i: words[i] in NEGATIONS and reaches(words, i, AGAINST)),
}
"""Which sign is right for which words."""

Map = Callable[[whybox.Model, Tensor], Tensor]


def at_words(method: whybox.Method) -> Map:
    """The method's relevance for a favourable answer over an unfavourable one, of each word (n, t)."""
    return lambda model, words: method(model, words, FAVOURABLE, at="embedding").sum(2)


OCCLUSION = whybox.Occlusion(infill=Constant(float(UNKNOWN)), regions=Along(1))
MAPS: dict[str, Map] = {
    "LRP ε": at_words(whybox.LRP("epsilon")),
    "gradient × input": at_words(whybox.InputXGradient()),
    "sensitivity analysis": at_words(whybox.SensitivityAnalysis()),
    "random": lambda model, words: RandomMap()(model, words, FAVOURABLE, seed=words.shape[1]),
    "occlusion": lambda model, words: OCCLUSION(model, words, FAVOURABLE),
}
UNSIGNED = ("sensitivity analysis",)


def negated(words: list[str], i: int) -> bool:
    """Whether a negation stands before the word."""
    return any(word in NEGATIONS for word in words[max(i - REACH, 0) : i])


def reaches(words: list[str], i: int, others: tuple[str, ...]) -> bool:
    """Whether the negation stands before one of these words."""
    return any(word in others for word in words[i + 1 : i + 1 + REACH])


def by_length(words: list[list[str]], vocabulary: Vocabulary) -> Iterator[tuple[list[int], Tensor]]:
    """Sentences of the same length together, so that none is padded: which ones, and their numbers."""
    for length in sorted({len(one) for one in words}):
        rows = [row for row, one in enumerate(words) if len(one) == length]
        yield rows, torch.stack([vocabulary.encode(words[row]) for row in rows])


def explained(model: whybox.Model, vocabulary: Vocabulary, words: list[list[str]]) -> dict[str, list[list[float]]]:
    """Every map's relevance of every word, for a favourable answer."""
    found: dict[str, list[list[float]]] = {name: [[]] * len(words) for name in MAPS}
    for rows, numbers in by_length(words, vocabulary):
        for name, explain in MAPS.items():
            for row, values in zip(rows, explain(model, numbers).tolist(), strict=True):
                found[name][row] = values
    return found


def spread(found: Interval) -> list[float]:
    """[mean, low, high], the mean alone where there are too few sentences for an interval."""
    return [found.mean] if math.isnan(found.low) else [found.mean, found.low, found.high]


def signs(maps: dict[str, list[list[float]]], words: list[list[str]]) -> dict[str, Any]:
    """For each group of words the share with the right sign, as `spread` has it, and how many there are.

    The mean is over sentences, of which the intervals are resamples.
    """
    signed = [name for name in maps if name not in UNSIGNED]
    found: dict[str, Any] = {}
    for group, (sign, fits) in GROUPS.items():
        places = [[i for i in range(len(one)) if fits(one, i)] for one in words]
        rows = [row for row, some in enumerate(places) if some]
        shares = numpy.array(
            [[numpy.mean([maps[name][row][i] * sign > 0 for i in places[row]]) for row in rows] for name in signed]
        )
        pairs = numpy.array(
            [[numpy.mean([maps["LRP ε"][r][i] * maps["occlusion"][r][i] > 0 for i in places[r]]) for r in rows]]
        )
        values = [spread(one) for one in intervals(numpy.concatenate([shares, pairs]))]
        found[group] = {
            "words": sum(map(len, places)),
            "sentences": len(rows),
            "right": dict(zip(signed, values[:-1], strict=True)),
            "LRP agrees with occlusion": values[-1],
        }
    return found


def deletion(
    model: whybox.Model,
    vocabulary: Vocabulary,
    maps: dict[str, list[list[float]]],
    words: list[list[str]],
    labels: Tensor,
) -> dict[str, Any]:
    """How far the answer falls while the most relevant words are replaced by the unknown one.

    Over the sentences of at least ten words that the net gets right: the mean fall of the probability of the class, its
    difference to LRP's, and the share that is still right after each word.
    """
    metric = TokenDeletion(tokens=LONGEST, infill=Constant(float(UNKNOWN)))
    falls: dict[str, list[Tensor]] = {name: [] for name in maps}
    right: dict[str, list[Tensor]] = {name: [] for name in maps}
    for rows, numbers in by_length(words, vocabulary):
        with torch.no_grad():
            own = model(numbers).argmax(1)
        kept = [i for i, row in enumerate(rows) if own[i] == labels[row] and len(words[row]) >= SHORTEST]
        if not kept:
            continue
        target, sign = own[kept], 2.0 * own[kept] - 1
        with started(model, numbers[kept], target, seed=numbers.shape[1], differentiable=False) as task:
            samples = Samples(task)
            for name, values in maps.items():
                relevance = torch.tensor([values[rows[i]] for i in kept])
                signed = relevance if name in UNSIGNED else relevance * sign[:, None]
                found = metric.score(case(samples, signed))
                falls[name].append(found.values)
                right[name].append(found.details["right"])
    each = {name: torch.cat(parts).double().numpy() for name, parts in falls.items()}
    behind = {name: each["LRP ε"] - values for name, values in each.items()}
    table = intervals(numpy.stack([*each.values(), *behind.values()]))
    means = list(map(spread, table))
    return {
        "sentences": len(each["LRP ε"]),
        "fall": dict(zip(each, means, strict=False)),
        "LRP less it": dict(zip(each, means[len(each) :], strict=True)),
        "right": {name: torch.cat(parts).double().mean(0).tolist() for name, parts in right.items()},
    }


def own(lists: tuple[tuple[str, ...], ...], negations: tuple[str, ...]) -> tuple[list[list[str]], Tensor]:
    """Sentences of our own about the words for and the words against, and whether they are favourable."""
    found = [
        (f"{start} is {negation} {word}".split(), int(favourable != bool(negation)))
        for favourable, words in zip((True, False), lists, strict=True)
        for word in words
        for start in ("the film", "this story", "it")
        for negation in negations
    ]
    return [words for words, _ in found], torch.tensor([label for _, label in found])


def taught(model: whybox.Model, vocabulary: Vocabulary) -> whybox.Model:
    """The net, taught to negate by sentences about every second word; what words mean stays as it was."""
    torch.manual_seed(0)
    net = copy.deepcopy(model.module)
    words, labels = own((FOR[::2], AGAINST[::2]), ("", "not"))
    numbers = pad_sequence([vocabulary.encode(one) for one in words], batch_first=True)
    adam = torch.optim.Adam([value for name, value in net.named_parameters() if "embedding" not in name], 2e-3)
    for _ in range(TAUGHT):
        loss = torch.nn.functional.cross_entropy(net(numbers), labels)
        adam.zero_grad()
        loss.backward()
        adam.step()
    return whybox.Model(net, chunk=model.chunk)


def negating(model: whybox.Model, vocabulary: Vocabulary) -> dict[str, Any]:
    """Of our own sentences about the other words, negated: the share with the right class, and of right signs of "not".

    One entry for the words for, one for the words against.
    """
    found = {}
    for group, lists, sign in (("words for", (FOR[1::2], ()), -1), ("words against", ((), AGAINST[1::2]), 1)):
        words, labels = own(lists, ("not",))
        maps = explained(model, vocabulary, words)
        with torch.no_grad():
            classes = torch.cat([model(vocabulary.encode(one)[None]).argmax(1) for one in words])
        found[group] = {"sentences": len(words), "class": float((classes == labels).double().mean())} | {
            name: sum(r[one.index("not")] * sign > 0 for r, one in zip(maps[name], words, strict=True)) / len(words)
            for name in ("LRP ε", "occlusion")
        }
    return found


def measured(model: whybox.Model, vocabulary: Vocabulary) -> dict[str, Any]:
    """All of one net, on the sentences for testing."""
    words, labels = read("test")
    right = 0
    with torch.no_grad():
        for rows, numbers in by_length(words, vocabulary):
            right += int((model(numbers).argmax(1) == labels[rows]).sum())
    maps = explained(model, vocabulary, words)
    return {
        "accuracy": right / len(labels),
        "signs": signs(maps, words),
        "negating": negating(model, vocabulary),
        "negating, taught": negating(taught(model, vocabulary), vocabulary),
        "deletion": deletion(model, vocabulary, maps, words, labels),
    }
