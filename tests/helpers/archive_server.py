"""A server on this machine that serves the layout of the exchange's archive."""

from __future__ import annotations

import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd

FIELDS = ("open", "high", "low", "close", "volume")
HEADER = (
    "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
)


class Server:
    """The archive: files by path, what was asked for, and how it misbehaves."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.breaks: dict[str, int] = {}  # how many times the transfer of a path breaks in the middle
        self.spoils: dict[str, int] = {}  # how many times another content comes
        self.status: dict[str, int] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                path = self.path.lstrip("/")
                outer.asked.append(f"{self.command} {path.rsplit('/', 1)[-1]}")
                body = outer.files.get(path, b"")
                status = outer.status.get(path, 200 if path in outer.files else 404)
                if outer.spoils.get(path, 0):
                    outer.spoils[path] -= 1
                    body = bytes(reversed(body))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if outer.breaks.get(path, 0):
                    outer.breaks[path] -= 1
                    body = body[: len(body) // 2]
                if with_body:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def put(self, symbol: str, part: str, table: pd.DataFrame, *, header: bool = False, unit: str = "ms") -> str:
        """One archive file and its checksum; returns its path."""
        kind, interval = ("monthly" if len(part) == 7 else "daily"), "1h"
        path = f"data/spot/{kind}/klines/{symbol}/{interval}/{symbol}-{interval}-{part}.zip"
        open_time = table.index.tz_localize(None).to_numpy().astype(f"M8[{unit}]").astype(int)
        rows = [HEADER] * header
        for time, values in zip(open_time, table.to_numpy(), strict=True):
            rows.append(f"{time},{','.join(f'{x:.8f}' for x in values)},{time + 1},1.5,3,0.5,0.7,0")
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr(f"{symbol}-{interval}-{part}.csv", "\n".join(rows) + "\n")
        self.files[path] = content.getvalue()
        digest = hashlib.sha256(content.getvalue()).hexdigest()
        self.files[f"{path}.CHECKSUM"] = f"{digest}  {path.rsplit('/', 1)[-1]}\n".encode()
        return path

    def count(self) -> int:
        """Requests since the last count."""
        count = len(self.asked)
        self.asked.clear()
        return count


def candles(start: str, end: str, seed: int) -> pd.DataFrame:
    """Random hours from start to the end of the day `end`, with eight decimals."""
    index = pd.date_range(start, pd.Timestamp(end) + pd.Timedelta("23h"), freq="h", tz="UTC")
    values = np.random.default_rng(seed).uniform(1, 100, (len(index), 5)).round(8)
    return pd.DataFrame(values, index, columns=list(FIELDS))


@contextmanager
def serving() -> Iterator[Server]:
    """A server that runs until the end of the block."""
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
