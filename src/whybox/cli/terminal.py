"""What every command says on the terminal: results on stdout; errors, warnings and progress on stderr."""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

import typer

from whybox.core.errors import CheckpointError, InputError, TargetError, UnknownNameError, WhyboxError

if TYPE_CHECKING:
    from whybox.core.model import Model

FAILED, ASKED_WRONGLY, INTERRUPTED = 1, 2, 130

_SMALL = 1_000_000  # parameters


@dataclass
class Work:
    """What a command is doing, for the line that an interrupted one leaves behind."""

    doing: str = "starting"
    written: list[str] = field(default_factory=list)


@contextmanager
def reported() -> Iterator[Work]:
    """Turn the errors that are meant for the user into one message and an exit code; others pass with a traceback."""
    work = Work()
    handler = _Warnings()
    logging.getLogger("whybox").addHandler(handler)
    try:
        yield work
    except (InputError, TargetError, CheckpointError, UnknownNameError) as error:
        _leave(str(error), ASKED_WRONGLY)
    except WhyboxError as error:
        _leave(str(error), FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        _leave(str(error), FAILED)
    except KeyboardInterrupt as interrupt:
        notes = "".join(f" ({note})" for note in getattr(interrupt, "__notes__", ()))
        done = f"written: {', '.join(work.written)}" if work.written else "nothing was written"
        typer.echo(f"\nInterrupted while {work.doing}{notes}; {done}.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        logging.getLogger("whybox").removeHandler(handler)


class _Warnings(logging.Handler):
    """What the library logs, as warnings on stderr."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("whybox.report"):  # which method was left out is said among the results
            warn(record.getMessage())


def _leave(message: str, code: int) -> NoReturn:
    typer.echo(f"Error: {' '.join(message.split())}", err=True)
    raise typer.Exit(code)


def warn(message: str) -> None:
    """A warning on stderr."""
    typer.echo(f"Warning: {message}", err=True)


def progress() -> bool:
    """Whether somebody watches: a bar is no use in a log file."""
    return sys.stderr.isatty()


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: a small net gains nothing from more, and loses much where the machine is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(model: "Model") -> AbstractContextManager[None]:
    """One thread for a small model, whose threads would wait for each other longer than they work."""
    small = sum(parameter.numel() for parameter in model.module.parameters()) < _SMALL
    return one_thread() if small else nullcontext()
