"""`train`: a latent model from data, with checkpoints from which a training that was killed goes on."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from whybox import datasets
from whybox.contrast.latent import files
from whybox.contrast.latent.course import Course, Stage
from whybox.contrast.latent.model import Latent
from whybox.contrast.latent.supply import Supply
from whybox.contrast.latent.vae import VAE
from whybox.contrast.latent.wgan import WGAN
from whybox.core.block import mix
from whybox.core.errors import CheckpointError, InputError, ModelError, UnknownNameError
from whybox.core.method import digest_of

logger = logging.getLogger(__name__)

Data = str | Tensor | Iterable[Any]
Kind = str | WGAN | VAE

KINDS: dict[str, Kind] = {"wgan-gp": WGAN(), "wgan": WGAN("clip"), "vae": VAE()}
WHAT = "unfinished training of a latent model"
# Seconds between checkpoints, and steps between looks at the loss.
EVERY, LOOK = 30.0, 20
# No loss of a training that goes well comes near it.
DIVERGED = 1e8
# So many samples of the training data are inverted to measure the spread of the reconstruction distances.
MEASURED = 256


def train(
    data: Data,
    kind: Kind = "wgan-gp",
    out: str | Path | None = None,
    *,
    seed: int = 0,
    root: str | Path | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> Latent:
    """Train a latent model on the data that a classifier was trained on; without the classifier.

    While it trains, its whole state is in `out` with ".training" appended: every half minute it is replaced, at once.
    The same call goes on from there after it was killed, to the same weights, bit for bit, as without the interruption
    (on a CPU, with the same number of threads). At the end the latent model is in `out`, and that file is gone; the
    same call then reads it. After the training some hundred samples are inverted for `Latent.spread`.

    Args:
        data: the name of a data set as `whybox.datasets.load` knows it, of which the training split is used; or samples
            (n, *features); or a loader, an iterable of batches of them or of tuples that begin with one: it is gone
            through once, and everything is held in memory. Samples (channels, height, width) are pictures.
        kind: "wgan-gp", "wgan" or "vae", or one with settings: `WGAN(size=200)`, `VAE(steps=2000)`.
        out: the file to write; without it nothing is written, and nothing can be gone on with.
        seed: of weights, order and noise.
        root: the folder of the data, for a name; the environment variable WHYBOX_DATA if it is not given.
        device: where to train. The latent model returned is on the CPU.
        progress: show a bar on anything over two seconds.

    Raises:
        UnknownNameError: there is no such kind or data set.
        InputError: the data are too few, not finite, or no numbers; or `out` cannot be written, or holds a latent
            model of another training.
        CheckpointError: the checkpoint is damaged.
        ModelError: the training diverged.
    """
    kind = kind_of(kind)
    path = None if out is None else Path(out).expanduser()
    if path is not None:
        files.check_writable(path)
    samples = _samples(data, root, kind.batch)
    training = files.plain(
        {
            "data": data.lower().partition(":")[0] if isinstance(data, str) else "own data",
            "kind": _name(kind),
            "settings": asdict(kind),
            "seed": seed,
            "samples": len(samples),
            "digest": digest_of({"data": samples}),
        }
    )
    if path is not None and path.is_file():
        return _finished(path, training)
    checkpoint = None if path is None else checkpoint_of(path)
    plan = kind.plan(tuple(samples.shape[1:]))
    with torch.random.fork_rng(devices=()):
        torch.default_generator.manual_seed(mix(seed, 0))
        course = kind.course(plan, samples, torch.device(device))
    supply = Supply(samples, kind.batch, seed, torch.device(device))
    done = 0 if checkpoint is None else _resumed(checkpoint, training, course, supply)
    _run(course, supply, done, checkpoint, training, progress)
    generator, encoder, critic = (course.nets.get(name) for name in ("generator", "encoder", "critic"))
    assert generator is not None
    latent = Latent(generator, plan.size, encoder, critic, plan=plan, training=training)
    chosen = torch.randperm(len(samples), generator=torch.Generator().manual_seed(mix(seed, -1)))[:MEASURED]
    latent = latent.measured(samples[chosen].to(device), seed=seed).to("cpu")
    if path is not None and checkpoint is not None:
        latent.save(path)
        checkpoint.unlink(missing_ok=True)
    return latent


def _run(
    course: Course, supply: Supply, done: int, checkpoint: Path | None, training: Mapping[str, Any], progress: bool
) -> None:
    """All stages from step number `done` of the whole."""
    kept = time.monotonic()
    for place, stage in enumerate(course.stages):
        before = sum(earlier.steps for earlier in course.stages[:place])
        first = min(max(done - before, 0), stage.steps)
        with tqdm(total=stage.steps, initial=first, desc=stage.name, delay=2, leave=False, disable=not progress) as bar:
            for number in range(first, stage.steps):
                supply.begin_step(place, number)
                loss = stage.step(number, supply)
                bar.update()
                due = checkpoint is not None and time.monotonic() - kept >= EVERY
                if due or number % LOOK == LOOK - 1 or number == stage.steps - 1:
                    bar.set_postfix(loss=f"{_checked(loss, stage, number):.3g}", refresh=False)
                if due and checkpoint is not None:
                    record = {"training": training, "done": before + number + 1, "taken": supply.taken}
                    files.write(checkpoint, WHAT, course.state(), record)
                    kept = time.monotonic()


def _checked(loss: Tensor, stage: Stage, number: int) -> float:
    """The loss as a number, if the training has not diverged."""
    value = float(loss)
    if not abs(value) < DIVERGED:  # NaN is not
        raise ModelError(
            f"the training diverged: at step {number + 1} of the {stage.name} the loss is {value:.3g}. Give it a lower "
            "rate, as in kind=WGAN(rate=5e-5), and look for outliers in the data"
        )
    return value


def _resumed(checkpoint: Path, training: Mapping[str, Any], course: Course, supply: Supply) -> int:
    """Put the state of a checkpoint into the training, if there is one; the number of steps done."""
    if not checkpoint.exists():
        return 0
    hint = "delete it to begin anew"
    state, record = files.read(checkpoint, WHAT, hint)
    if record["training"] != training:
        raise InputError(
            f"{checkpoint} is of another training ({_differences(record['training'], training)}); give another out, "
            f"or {hint}"
        )
    try:
        course.restore(state)
        supply.taken, done = int(record["taken"]), int(record["done"])
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} does not fit this version of whybox: {error}; {hint}") from error
    logger.info("going on from step %d of %s", done, checkpoint)
    return done


def checkpoint_of(out: Path) -> Path:
    """Where the state of a training is until `out` is written."""
    return out.with_name(f"{out.name}.training")


def _finished(path: Path, training: Mapping[str, Any]) -> Latent:
    """The latent model in the file, if it is what would be trained."""
    latent = Latent.load(path)
    if latent.training != training:
        raise InputError(
            f"{path} holds a latent model of another training ({_differences(latent.training, training)}); give "
            "another out, or delete it"
        )
    return latent


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What two trainings differ in, in words."""
    one, other = ({**part, **part.get("settings", {})} for part in (there, here))
    keys = [key for key in {**one, **other} if key != "settings" and one.get(key) != other.get(key)]
    return ", ".join(f"{key} {one.get(key)!r:.20}, not {other.get(key)!r:.20}" for key in keys)


def kind_of(kind: Kind) -> WGAN | VAE:
    """The kind of this name, or the kind itself."""
    if isinstance(kind, WGAN | VAE):
        return kind
    if kind not in KINDS:
        raise UnknownNameError("kind of latent model", str(kind), KINDS, f"Known are {', '.join(KINDS)}.")
    return kind_of(KINDS[kind])


def _name(kind: WGAN | VAE) -> str:
    if isinstance(kind, VAE):
        return "vae"
    return "wgan-gp" if kind.lipschitz == "penalty" else "wgan"


def _samples(data: Data, root: str | Path | None, batch: int) -> Tensor:
    """All samples, on the CPU, checked."""
    if isinstance(data, str):
        samples: Any = datasets.load(data, split="train", root=root)[0]
    elif isinstance(data, Tensor):
        samples = data.detach()
    else:
        parts: list[Any] = [part[0] if isinstance(part, tuple | list) else part for part in data]
        if not parts or not all(isinstance(part, Tensor) and part.shape[1:] == parts[0].shape[1:] for part in parts):
            raise InputError("a loader gives batches, tensors of samples of one shape, or tuples that begin with one")
        samples = torch.cat(parts).detach()
    if not isinstance(samples, Tensor) or not samples.is_floating_point():
        raise InputError("a latent model is trained on numbers in floating point; texts and tokens have no such space")
    if samples.ndim < 2 or not samples.numel():
        raise InputError(f"the data have shape {tuple(samples.shape)}; give samples (n, *features)")
    if len(samples) < batch:
        raise InputError(
            f"{len(samples)} samples are too few for batches of {batch}; give more, or a kind with a smaller batch, "
            "as in kind=VAE(batch=16)"
        )
    if not bool(torch.isfinite(samples).all()):
        raise InputError("the data hold NaN or infinity; clean them before training")
    if bool((samples == samples[:1]).all()):
        raise InputError("all samples are the same; there is nothing to learn")
    return samples.cpu().float()
