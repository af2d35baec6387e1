"""The version of jaxsim; that of `pyproject.toml`."""

VERSION = "0.1.0"
