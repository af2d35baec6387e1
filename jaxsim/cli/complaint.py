"""Error messages for the user of the command line."""

import contextlib
import re
import warnings
from collections.abc import Iterator

import typer


class Complaint(Exception):
    """An error whose message is one sentence that begins with the argument's name."""


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
    """Print a `Complaint` as one line on the error stream and exit with code 2."""
    try:
        yield
    except Complaint as complaint:
        typer.echo(f"Error: {complaint}", err=True)
        raise typer.Exit(2) from None


@contextlib.contextmanager
def as_complaint(options: dict[str, str]) -> Iterator[None]:
    """Turn ValueErrors, TypeErrors and OSErrors of jaxsim into complaints, and print its warnings on the error stream.

    options: name of an argument of jaxsim on the command line, such as `{"close": "FILE"}`; others get their option.
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
    """Turn `year_freq: ...` into `--year-freq: ...`."""
    match = re.match(r"([a-z_]+): ", message)
    if match is None:
        return message
    name = match[1]
    return f"{options.get(name, '--' + name.replace('_', '-'))}: {message[match.end() :]}"
