"""Shapes and dtypes are checked in all tests where arrays are annotated, by jaxtyping's import hook with beartype."""

from jaxtyping import install_import_hook

install_import_hook(["jaxsim.engine", "allocators"], "beartype.beartype")
