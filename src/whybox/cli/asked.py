"""What was asked for, checked before anything is loaded or computed."""

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from whybox.cli.methods import learns, written
from whybox.core.errors import InputError

if TYPE_CHECKING:
    from whybox.core.method import Method
    from whybox.evaluation.metric import Metric

# Those asked for where nothing is said, of texts.
TEXT_METHODS = ("lrp", "integrated_gradients", "occlusion", "generic_attention")
_PICTURES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_MODELS = (
    "digits (comes with whybox), torchvision:NAME, timm:NAME, hf:ID or path/to/file.py:FACTORY, "
    "as in --model torchvision:resnet50"
)


def pictures(arguments: Iterable[str]) -> list[Path]:
    """The files that the arguments name: files as they are, folders as the pictures in them, patterns expanded."""
    found: dict[Path, None] = {}
    for argument in arguments:
        found.update(dict.fromkeys(_expanded(argument)))
    return list(found)


def texts(arguments: Iterable[str], specs: Iterable[str]) -> list[str] | None:
    """The texts that the arguments are, those in .txt files among them; None where they name pictures.

    A text is what is no file and looks like none, where the model may be one of texts.
    """
    found = list(arguments)
    if any(spec == "digits" or spec.startswith(("torchvision:", "timm:")) for spec in specs):
        return None
    if not found or not all(map(_is_text, found)):
        return None
    return [_read(one) if one.endswith(".txt") else one for one in found]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"the text {path!r} is not in UTF-8 ({error}); save it in that encoding") from None


def _is_text(argument: str) -> bool:
    if not argument:  # which as a path would be the folder that one is in
        return True
    if argument.endswith(".txt"):
        return Path(argument).is_file()
    try:
        there = Path(argument).expanduser().exists()
    except OSError:  # longer than any name
        there = False
    return not there and not argument.lower().endswith(_PICTURES)


def _expanded(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.is_dir():
        inside = sorted(f for f in path.iterdir() if f.suffix.lower() in _PICTURES and not f.name.startswith("."))
        if not inside:
            raise InputError(f"the folder {argument!r} holds no pictures ({', '.join(_PICTURES)}) itself")
        return inside
    if path.exists() or not set("*?[") & set(argument):
        return [path]
    anchor = Path(path.anchor)
    inside = sorted(f for f in anchor.glob(str(path.relative_to(anchor))) if f.is_file())
    if not inside:
        raise InputError(f"no file fits the pattern {argument!r}")
    return inside


def models(specs: tuple[str, ...], weights: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """Each model with its weights."""
    if not specs:
        raise InputError(f"say which model to explain with --model: {_MODELS}")
    if len(specs) > 2:
        raise InputError(f"one model is explained or two are compared, not {len(specs)}; run whybox once for each pair")
    if weights and len(weights) != len(specs):
        raise InputError(
            f"there are {len(specs)} --model but {len(weights)} --weights: give them once for each model, in the "
            "models' order, 'default' for the weights that a model comes with"
        )
    own = [None if choice == "default" else choice for choice in weights] or [None] * len(specs)
    pairs = list(zip(specs, own, strict=True))
    if len(set(pairs)) < len(pairs):
        raise InputError(f"{specs[0]!r} is given twice with the same weights; give two different ones to compare them")
    for spec, choice in pairs:
        _check_file(spec.rpartition(":")[0], ".py", f"the model {spec!r}")
        _check_file(choice or "", (".safetensors", ".pt", ".pth", ".bin", ".ckpt"), "--weights")
    return pairs


def _check_file(path: str, suffixes: str | tuple[str, ...], what: str) -> None:
    if path.endswith(suffixes) and not Path(path).is_file():
        raise InputError(f"there is no file {path!r}, which {what} needs")


def methods(text: str, model: str = "MODEL") -> "list[Method]":
    """The methods in a list such as "gradient,smooth_grad(samples=64),l2x.safetensors", each once, ready to explain."""
    from whybox.core.method import Fitted
    from whybox.core.registry import method

    parts = [part for part in map(str.strip, split(text)) if part]
    if not parts:
        raise InputError("--methods is empty; `whybox methods` lists the methods there are")
    found = list(dict.fromkeys(method(part) for part in parts))
    for one in found:
        if one.taxonomy.trains and learns(type(one)) and not isinstance(one, Fitted):
            name = written(one)
            file = Path(f"{name.partition('(')[0]}.safetensors")
            fit = shlex.join(["whybox", "fit", name, "--model", model])
            raise InputError(
                f"{name} learns from data before it explains. First: {fit} --data DATA -o {file}, "
                f"then: {command_with(file, model)}"
            )
    return found


def command_with(file: Path, model: str, weights: str | None = None) -> str:
    """The command that explains with what a method has learned."""
    own = [] if weights is None else ["--weights", weights]
    return shlex.join(["whybox", "explain", "IMAGE", "--model", model, *own, "--methods", str(file)])


def learner(text: str) -> "Method":
    """A method that learns from data and has not done so."""
    from whybox.core.method import Fitted
    from whybox.core.registry import method, method_class
    from whybox.core.registry import methods as names

    found = method(text.strip())
    if isinstance(found, Fitted):
        raise InputError(f"{text} has been fitted already; explain with it: `whybox explain … --methods {text}`")
    if not learns(type(found)):
        able = ", ".join(name for name in names() if learns(method_class(name)))
        raise InputError(f"{written(found)} has nothing to learn: explain with it as it is; those that learn: {able}")
    return found


def metrics(text: str) -> "list[Metric]":
    """The metrics in a list such as "deletion,region_perturbation(size=4)", each once."""
    from whybox.core.registry import metric

    parts = [part for part in map(str.strip, split(text)) if part]
    if not parts:
        raise InputError("--metrics is empty; `whybox metrics` lists the metrics there are")
    return list(dict.fromkeys(metric(part) for part in parts))


def split(text: str) -> list[str]:
    """The parts between commas that stand outside all brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for sign in text:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        else:
            depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def seed(number: int) -> int:
    """The seed, if the random generators take it."""
    if not 0 <= number < 2**63:
        raise InputError(f"--seed {number} is out of range: a seed goes from 0 to 2**63 - 1")
    return number


def device(name: str) -> str:
    """The device, if this machine has it."""
    import torch

    kind, _, number = name.lower().partition(":")
    if kind not in ("cpu", "cuda", "mps") or not (number.isdecimal() or not number):
        raise InputError(f"there is no device {name!r}; a device is cpu, cuda, cuda:N or mps")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            why = "torch is built without CUDA" if torch.version.cuda is None else "torch finds no GPU with its driver"
            raise InputError(f"the device {name!r} cannot be used: {why}; leave --device out to use the CPU")
        if number and int(number) >= count:
            raise InputError(f"there is no device {name!r}: this machine has {count}, from cuda:0 to cuda:{count - 1}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("the device 'mps' is there on Apple's own processors only; leave --device out to use the CPU")
    return name.lower()


def fitted_file(path: Path, weights: str | None) -> None:
    """Find out now whether what was learned can be written in the end."""
    from whybox.report import check_writable

    if path.suffix != ".safetensors":
        raise InputError(f"what a method learns is a file of tensors: let the name {str(path)!r} end in .safetensors")
    if weights is not None and path.resolve() == Path(weights).resolve():
        raise InputError(f"{str(path)!r} holds the model's weights; give what is learned a file of its own")
    check_writable(path)


def outputs(report: Path, json: Path | None, inputs: list[Path]) -> None:
    """Find out now whether the files can be written in the end."""
    from whybox.report import check_writable

    if report.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"the report {str(report)!r} is an HTML file: let its name end in .html")
    check_writable(report)
    if json is None:
        return
    resolved = json.resolve()
    if resolved == report.resolve() or resolved in {path.resolve() for path in inputs}:
        raise InputError(f"--json {str(json)!r} would overwrite the report or a picture; give it a name of its own")
    check_writable(json)
