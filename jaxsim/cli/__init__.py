"""The command line: `jaxsim demo`, `jaxsim fetch`, `jaxsim sweep`, `jaxsim report`. Its packages are an extra."""

import importlib.util
import sys

_EXTRA = ("typer", "tqdm", "plotly", "pyarrow", "pooch", "requests")


def main() -> None:
    """The console entry point. If packages are missing, it prints the pip command and exits with 1."""
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The command line needs {', '.join(missing)}: pip install 'jaxsim-portfolio[cli]'",
            file=sys.stderr,
        )
        raise SystemExit(1)
    from jaxsim.cli.app import app

    app(prog_name="jaxsim")
