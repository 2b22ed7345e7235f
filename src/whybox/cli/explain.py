"""`whybox explain`: check what was asked, load, explain, write the report, say the results."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from whybox.cli import asked
from whybox.cli.classes import class_index
from whybox.cli.results import show, write_report
from whybox.cli.terminal import Work, progress
from whybox.core.errors import InputError, ModelError, WhyboxError

if TYPE_CHECKING:
    from torch import Tensor

    from whybox.core.model import Model
    from whybox.core.passage import Passage
    from whybox.core.target import Contrast
    from whybox.report import Findings


_NAME = 70  # columns for what a text is called by


@dataclass(frozen=True)
class Request:
    """What was asked for, as it was written."""

    images: tuple[str, ...]
    models: tuple[str, ...]
    weights: tuple[str, ...]
    methods: str
    optional_methods: bool
    target: str | None
    versus: str | None
    layer: str | None
    device: str
    seed: int
    output: Path
    json: str | None
    command: str
    contrast: bool = False


@dataclass(frozen=True)
class Question:
    """A model with the pictures or texts as its inputs, and the classes as its indices."""

    model: "Model"
    inputs: "Tensor"
    target: int | None
    versus: int | None
    at: str | None
    passages: "tuple[Passage, ...] | None" = None


def explain(request: Request, work: Work) -> None:
    """Do what was asked. All that can be checked without a model is checked before one is loaded."""
    work.doing = "checking what was asked"
    texts = asked.texts(request.images, request.models)
    paths = [] if texts else asked.pictures(request.images)
    models = asked.models(request.models, request.weights)
    to_stdout = request.json == "-"
    json_path = None if request.json is None or to_stdout else Path(request.json)
    asked.outputs(request.output, json_path, paths)
    usual = texts and request.optional_methods
    methods = asked.methods(",".join(asked.TEXT_METHODS) if usual else request.methods, request.models[0])
    device = asked.device(request.device)
    seed = asked.seed(request.seed)
    check_pictures(paths, work)

    questions = []
    for spec, weights in models:
        from whybox.models import load

        work.doing = f"loading {spec}"
        model = load(spec, weights, device)
        questions.append(_text_question(model, texts, request) if texts else _question(model, paths, request))

    from whybox import report

    findings = []
    names = [textwrap.shorten(text, _NAME, placeholder=" …") for text in texts or ()] or [str(path) for path in paths]
    for question in questions:
        work.doing = f"explaining {question.model.name}"
        found = report.collect(
            question.model,
            question.inputs,
            methods,
            _target(question, request),
            versus=question.versus,
            at=question.at,
            seed=seed,
            progress=progress(),
        )
        findings.append(found if question.passages is None else found.of_texts(question.passages))
    write_report(request.output, findings, names, request.command, work)
    record = {"command": request.command, "models": [report.as_json(found, names) for found in findings]}
    text = json.dumps(record, indent=2, allow_nan=False)
    if json_path is not None:
        json_path.write_text(f"{text}\n", encoding="utf-8")
        work.written.append(str(json_path))
    if to_stdout:
        typer.echo(text)
    show(findings, names, err=to_stdout)
    typer.echo(str(request.output), err=to_stdout)
    if not request.optional_methods:
        _complain(findings)


def _target(question: Question, request: Request) -> "int | Contrast | None":
    """What is explained; a contrast without `versus` is with the strongest other class."""
    from whybox.core.target import Contrast

    return Contrast(question.target) if request.contrast and question.versus is None else question.target


def _complain(findings: "Sequence[Findings]") -> None:
    """Fail if a method that was asked for by name is missing from the report."""
    missing = [
        f"{failure.method['name']} cannot explain {found.model}" for found in findings for failure in found.failures
    ]
    if missing:
        raise WhyboxError(f"{'; '.join(missing)}. The report shows the others and says why")


def check_pictures(paths: Sequence[Path], work: Work) -> None:
    """Decode every picture once, so that a damaged one is found before the model is loaded."""
    from tqdm.auto import tqdm

    from whybox.datasets import read_image

    work.doing = "reading the pictures"
    for path in tqdm(paths, delay=2, leave=False, disable=not progress(), unit="picture"):
        read_image(path)


def _question(model: "Model", paths: Sequence[Path], request: Request) -> Question:
    """What is asked of this model; its inputs, classes and layer are checked."""
    from whybox.core.taps import find_layer

    if request.layer is not None:
        find_layer(model.module, request.layer)
    inputs = inputs_of(model, paths)
    outputs = predict(model, inputs[:1])
    count = outputs.shape[1] if outputs.ndim > 1 else 1
    target, versus = (
        None if text is None else class_index(text, model.labels, count) for text in (request.target, request.versus)
    )
    if target is not None and target == versus:
        raise InputError(f"--target and --versus name the same class, {target}; give two different ones")
    if target is None and versus is not None:
        _check_versus(model, inputs, paths, versus)
    return Question(model, inputs, target, versus, request.layer)


def _text_question(model: "Model", texts: Sequence[str], request: Request) -> Question:
    """What is asked of this model about texts, at its embedding or at the layer that was asked for."""
    from whybox import text
    from whybox.core.taps import find_layer

    if model.tokenizer is None:
        raise InputError(
            f"{model.name} has no tokenizer to read {texts[0]!r} with, and there is no such file; give it pictures, or "
            "save the tokenizer beside the model"
        )
    asked = text.ask(model, None, texts)
    if request.layer is not None:
        find_layer(asked.model.module, request.layer)
    target, versus = (None if name is None else asked.index(name) for name in (request.target, request.versus))
    if target is not None and target == versus:
        raise InputError(f"--target and --versus name the same class, {target}; give two different ones")
    return Question(asked.model, asked.inputs, target, versus, request.layer or asked.at, asked.passages)


def _check_versus(model: "Model", inputs: "Tensor", paths: Sequence[Path], versus: int) -> None:
    """A prediction cannot be contrasted with itself."""
    from whybox.core.target import Logit

    for x, path in zip(inputs, paths, strict=True):
        if Logit(versus).describe(0) == Logit().pin(1, predict(model, x[None])).describe(0):
            raise InputError(
                f"{model.name} predicts class {versus}, which --versus names, for {str(path)!r} itself; say with "
                "--target which class to explain, or name another one"
            )


def inputs_of(model: "Model", paths: Sequence[Path]) -> "Tensor":
    """The pictures as one batch, as the model wants them."""
    import torch

    from whybox.datasets import read_image

    if model.preprocess is None:
        raise InputError(
            f"{model.name} does not say how a picture becomes its input; in a file of your own return "
            "whybox.Model(module, preprocess=whybox.models.ImagePreprocess(resize=(height, width), mean=…, std=…))"
        )
    inputs = [model.preprocess(read_image(path)) for path in paths]
    shapes = {tuple(x.shape) for x in inputs}
    if len(shapes) > 1:
        raise InputError(
            f"{model.name} takes pictures in their own size, and these differ ({', '.join(map(str, sorted(shapes)))}); "
            "explain them one at a time, or give the model's preprocessing a size"
        )
    batch = torch.stack(inputs)
    reference = model.reference_tensor()
    return batch if reference is None else batch.to(reference)


def predict(model: "Model", inputs: "Tensor") -> "Tensor":
    """The model's output, as it stands."""
    import torch

    from whybox.core.guard import guard
    from whybox.core.model import by_row

    try:
        with guard(model.module), torch.no_grad():
            return by_row(model(inputs.clone()), len(inputs))
    except WhyboxError:
        raise
    except Exception as error:  # whatever the user's model raises
        shape = " × ".join(map(str, inputs.shape))
        raise ModelError(f"{model.name} fails on an input of shape {shape}: {error}") from error
