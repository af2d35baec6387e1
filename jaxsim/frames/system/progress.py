"""The progress bar."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(total: int, unit: str, is_shown: bool, done: int = 0) -> Iterator[Callable[..., object]]:
    """A function to call with the number of finished units, and by keyword with figures to show beside the bar.

    done: number of units that were finished before.

    Raises ImportError naming the pip command if a bar is to be shown without tqdm; TypeError unless `is_shown` is a
    bool.
    """
    if not isinstance(is_shown, bool):
        raise TypeError(f"progress: expected True or False, got {is_shown!r}")
    if not is_shown:
        yield lambda count, **figures: None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ImportError('progress: needs tqdm: pip install "jaxsim-portfolio[cli]"') from error
    with tqdm(total=total, unit=unit, initial=done) as bar:

        def advance(count: int, **figures: float) -> None:
            if figures:
                bar.set_postfix(figures, refresh=False)
            bar.update(count)

        yield advance
