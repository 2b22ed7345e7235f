"""`whybox doctor`: is this installation sound, and what can this machine do?"""

import importlib
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import typer

from whybox._version import __version__
from whybox.cli.demo import held_out_digits
from whybox.cli.terminal import one_thread
from whybox.core.text import columns

OK, ABSENT, BROKEN = "ok", "-", "BROKEN"
_EXTRAS = {"torchvision": "vision", "timm": "vision", "transformers": "hf"}
_GAP = 0.01

Finding = tuple[str, str, str]


def examine() -> bool:
    """Print what was found, line by line; False if something is broken."""
    findings = [
        (OK, "whybox", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        _try("torch", _torch),
        *(_extra(package, extra) for package, extra in _EXTRAS.items()),
        _try("devices", _devices),
        _try("memory", _memory),
        _try("digits", _explain_a_digit),
    ]
    for line in columns(findings):
        typer.echo(line)
    broken = [name for mark, name, _ in findings if mark == BROKEN]
    typer.echo("")
    typer.echo(f"Broken: {', '.join(broken)}." if broken else "Everything that is installed works.")
    return not broken


def _try(name: str, look: Callable[[], str]) -> Finding:
    """What there is to say, or why it fails: a doctor reports a failure, whatever it is, and goes on."""
    try:
        return OK, name, look()
    except Exception as error:
        return BROKEN, name, " ".join(f"{type(error).__name__}: {error}".split())


def _torch() -> str:
    import torch

    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _extra(package: str, extra: str) -> Finding:
    """An optional package: its version, or the line that installs it."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return ABSENT, package, f"not installed: pip install 'whybox[{extra}]'"
    return _try(package, lambda: f"{found}{_imported(package)}")


def _imported(package: str) -> str:
    """Import the package as whybox does; a remark where torchvision needed help."""
    from whybox.models import torchvision_models

    torchvision_models.prepare_torchvision()
    importlib.import_module(package)
    if package == "torchvision" and torchvision_models._DECLARED:
        return " (built for another torch: two operators that classifiers do not use were declared for it)"
    return ""


def _devices() -> str:
    import torch

    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ", ".join(found)


def _memory() -> str:
    from whybox.core.stream import free_memory

    free = free_memory()
    return "this system does not say how much is free" if free is None else f"{free / 2**30:.1f} GiB free"


def _explain_a_digit() -> str:
    """A prediction and an explanation of which the right answer is known."""
    import torch

    from whybox.attribution.path import IntegratedGradients
    from whybox.core.errors import ModelError
    from whybox.models import load

    model = load("digits")
    inputs, truth = (value[:1] for value in held_out_digits())
    digit = int(truth)
    with torch.no_grad():
        scores, blank = model(torch.cat((inputs, torch.zeros_like(inputs))))
    if int(scores.argmax()) != digit:
        raise ModelError(f"the embedded model takes a {digit} for a {int(scores.argmax())}")
    with one_thread():
        total = IntegratedGradients(steps=64).run(model, inputs, digit).relevance
    expected = float(scores[digit] - blank[digit])
    gap = abs(float(torch.as_tensor(total).sum()) - expected) / abs(expected)
    if not gap <= _GAP:
        raise ModelError(f"integrated gradients do not add up: they miss the score by {gap:.1%}")
    return f"a {digit} is recognised, and its integrated gradients add up to the score within {gap:.2%}"
