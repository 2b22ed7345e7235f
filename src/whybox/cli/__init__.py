"""The command `whybox`. What is heavy is imported inside the commands, so that `whybox --help` answers at once."""

from whybox.cli.commands import app, main

__all__ = ["app", "main"]
