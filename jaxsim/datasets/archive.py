"""Files of a public archive, each verified by its published checksum and kept in a folder.

The packages pooch, requests and tqdm are an extra and are imported inside functions.
"""

import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import final
from urllib.parse import quote

from jaxsim.files import written_whole

CACHE_VARIABLE = "JAXSIM_CACHE"
_THREADS = 4
_TIMEOUT = 30  # seconds without an answer
_SHA256 = re.compile(r"[0-9a-f]{64}(?=\s|$)")


def require_pooch() -> ModuleType:
    """The module `pooch`. Raises ImportError with the pip command if pooch, requests or tqdm is missing."""
    try:
        import pooch
        import requests  # noqa: F401
        import tqdm  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"Fetching prices needs {error.name}, which is not installed: pip install 'jaxsim-portfolio[data]'"
        ) from error
    return pooch


@final
@dataclass(frozen=True)
class Archive:
    """An archive on the web, and the folder that keeps what was fetched from it.

    base_url: address of the archive.    folder: folder of its files, under the same paths as in the archive.

    A file counts as complete if the checksum file beside it agrees. The checksum is written last, and both files are
    renamed into place, so that a broken transfer never counts as complete.
    """

    base_url: str
    folder: Path

    def get(self, path: str) -> Path | None:
        """The verified file on disk, fetched if it is not complete; None if the archive has no such file.

        A transfer that breaks off or does not match its checksum is tried once more.
        Raises ConnectionError if the archive cannot be reached or does not deliver the file, and OSError if the
        checksum does not match again; then no partial file is left.
        """
        pooch = require_pooch()
        file, checksum = self.folder / path, self.folder / f"{path}.CHECKSUM"
        if self._is_complete(file, checksum):
            return file
        if self._is_known_absent(path):
            return None
        again = False
        while True:
            text = self._read_checksum(path)
            if text is None:
                return None
            fault = self._transfer(pooch, path, text[:64])
            if fault is None:
                _write(checksum, text)
                return file
            if again:
                raise fault from None
            warnings.warn(f"{fault}; it is fetched again", stacklevel=2)
            again = True

    def get_all(self, paths: Iterable[str], label: str, progress: bool | None) -> dict[str, Path | None]:
        """`get` each path, a few at a time, by path; the first error ends all.

        progress: whether to show a bar on the error stream; None: if that is a terminal.
        """
        pooch = require_pooch()
        from tqdm import tqdm

        paths, files = list(paths), {}
        if not paths:
            return {}
        _make(self.folder)
        pool = ThreadPoolExecutor(_THREADS)
        try:
            with (
                _without_notes(pooch),
                tqdm(
                    total=len(paths),
                    desc=label,
                    unit="file",
                    leave=False,
                    disable=None if progress is None else not progress,
                ) as bar,
            ):
                jobs = {pool.submit(self.get, path): path for path in paths}
                for job in as_completed(jobs):
                    files[jobs[job]] = job.result()
                    bar.update()
        finally:
            pool.shutdown(cancel_futures=True)
        return files

    def remember_absent(self, path: str) -> None:
        """Note that this archive does not have this file, so that it is not asked for again."""
        if not self._is_known_absent(path):
            _write(self.folder / f"{path}.ABSENT", self.base_url)

    def _is_known_absent(self, path: str) -> bool:
        """Whether a note says that this archive lacks the file; another mirror may have it."""
        try:
            return (self.folder / f"{path}.ABSENT").read_text(encoding="utf-8") == self.base_url
        except FileNotFoundError:
            return False

    def _is_complete(self, file: Path, checksum: Path) -> bool:
        try:
            expected = checksum.read_text(encoding="utf-8")[:64]
        except FileNotFoundError:
            return False
        if file.is_file() and require_pooch().file_hash(str(file)) == expected:
            return True
        file.unlink(missing_ok=True)  # damaged
        checksum.unlink(missing_ok=True)
        return False

    def _read_checksum(self, path: str) -> str | None:
        """The line of the checksum file: the SHA-256 in hexadecimal, then the name. None if there is no file."""
        import requests

        pooch, text = require_pooch(), BytesIO()
        download = pooch.HTTPDownloader(timeout=_TIMEOUT, stream=False)  # reads 404 pages too, so the socket closes
        try:
            download(f"{self._url(path)}.CHECKSUM", text, None)
        except requests.RequestException as error:
            if not _is_not_found(error):
                raise self._unreachable(path, error) from None
            try:
                is_there = download(self._url(path), text, None, check_only=True)
            except requests.RequestException as other:
                raise self._unreachable(path, other) from None
            if is_there:
                raise OSError(
                    f"base_url: {self.base_url} has {path} without its checksum; it cannot be verified"
                ) from None
            return None
        line = text.getvalue().decode("utf-8", errors="replace").strip().lower()
        if _SHA256.match(line) is None:  # such as the log-in page of a hotel network
            raise OSError(f"base_url: {self._url(path)}.CHECKSUM holds no SHA-256 but {line[:40]!r}")
        return line

    def _transfer(self, pooch: ModuleType, path: str, sha256: str) -> OSError | None:
        """Fetch one file; returns the error, or None."""
        import requests

        file = self.folder / path
        _make(file.parent)
        download = pooch.HTTPDownloader(timeout=_TIMEOUT, chunk_size=1 << 16)
        try:
            pooch.retrieve(self._url(path), known_hash=sha256, fname=file.name, path=file.parent, downloader=download)
        except requests.RequestException as error:
            return self._unreachable(path, error)
        except ValueError:  # pooch has deleted it
            return OSError(f"base_url: {path} from {self.base_url} does not match its checksum and was deleted")
        return None

    def _unreachable(self, path: str, error: Exception) -> ConnectionError:
        import requests

        response = getattr(error, "response", None)
        if response is not None:
            failure = f"answered {response.status_code} {response.reason}".rstrip()
        elif isinstance(error, requests.Timeout):
            failure = f"did not answer within {_TIMEOUT} seconds"
        elif isinstance(error, requests.exceptions.ChunkedEncodingError):
            failure = "broke off"
        else:
            failure = "could not be reached"
        return ConnectionError(
            f"base_url: {self.base_url} {failure} when asked for {path}; files that are complete in {self.folder} "
            "are used without network, and base_url= may name a mirror"
        )

    def _url(self, path: str) -> str:
        return f"{self.base_url}/{quote(path)}"


def cache_folder(cache: str | os.PathLike[str] | None) -> Path:
    """`cache`, else the environment variable JAXSIM_CACHE, else the cache folder of the system. Raises TypeError."""
    chosen = cache if cache is not None else os.environ.get(CACHE_VARIABLE) or None
    if chosen is None:
        return Path(require_pooch().os_cache("jaxsim-portfolio"))
    if not isinstance(chosen, str | os.PathLike):
        raise TypeError(f"cache: expected a folder, got {chosen!r}")
    return Path(chosen).expanduser().absolute()


def _is_not_found(error: Exception) -> bool:
    return getattr(getattr(error, "response", None), "status_code", None) == 404


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cache: the folder {str(folder)!r} cannot be made: {error.strerror}") from None


def _write(file: Path, text: str) -> None:
    _make(file.parent)
    with written_whole(file) as draft:
        draft.write_text(text, encoding="utf-8")


@contextmanager
def _without_notes(pooch: ModuleType) -> Iterator[None]:
    """Silence pooch, which prints a line per file."""
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
