"""What a user is told who asked for something that cannot be done."""

import contextlib
import re
import warnings
from collections.abc import Iterator

import typer


class Complaint(Exception):
    """One sentence that begins with the argument's name."""


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """A `Complaint` becomes one line on the error stream and exit code 2."""
    try:
        yield
    except Complaint as complaint:
        typer.echo(f"Error: {complaint}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def as_complaint(options: dict[str, str]) -> Iterator[None]:
    """The ValueErrors, TypeErrors and OSErrors of jaxsim as complaints, and its warnings as lines on the error stream.

    options: what the user calls an argument of jaxsim, as `{"close": "FILE"}`; others get their option.
    """
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            yield
    except (ValueError, TypeError, OSError) as error:
        raise Complaint(_translate(str(error), options)) from error
    for warning in caught:
        typer.echo(f"Warning: {warning.message}", err=True)


def _translate(message: str, options: dict[str, str]) -> str:
    """`year_freq: ...` as `--year-freq: ...`."""
    match = re.match(r"([a-z_]+): ", message)
    if match is None:
        return message
    name = match[1]
    return f"{options.get(name, '--' + name.replace('_', '-'))}: {message[match.end() :]}"
