"""CPU time and compilations of every test: `bash scripts/test -p tests.helpers.times --times FILE`.

CPU time of all threads, and of processes that ended meanwhile, unlike wall time does not depend on what else the
machine does. FILE gets one line of JSON for each test; `python -m tests.helpers.times FILE` sums them by file.
"""

import collections
import json
import resource
import sys
import time

import pytest

#: Durations that JAX reports, in seconds: our name of each by a part of JAX's.
EVENTS = {
    "jaxpr_trace_duration": "trace",
    "jaxpr_to_mlir_module_duration": "lower",
    "backend_compile_duration": "compile",
}


def pytest_addoption(parser):
    parser.addoption("--times", help="append CPU time and compilations of every test to this file")


def pytest_configure(config):
    if config.option.times:
        config.pluginmanager.register(Times(config.option.times))


class Times:
    def __init__(self, path: str):
        self.path = path
        self.events = collections.Counter()

    def pytest_collection_finish(self):
        import jax  # not before `tests/conftest.py` has said where programs are kept

        jax.monitoring.register_event_duration_secs_listener(self._listen)

    def _listen(self, event: str, duration: float, **_) -> None:
        for part, name in EVENTS.items():
            if event.endswith(part):
                self.events[name] += duration
                self.events[f"num_{name}"] += 1

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item):
        self.events.clear()
        before, wall = cpu_time(), time.perf_counter()
        try:
            return (yield)
        finally:
            line = {"test": item.nodeid, "cpu": cpu_time() - before, "wall": time.perf_counter() - wall} | self.events
            with open(self.path, "a") as file:
                file.write(json.dumps(line) + "\n")


def cpu_time() -> float:
    """Seconds of CPU time of this process and of its children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def main(path: str) -> None:
    files = collections.defaultdict(collections.Counter)
    with open(path) as lines:
        for line in map(json.loads, lines):
            times = files[line.pop("test").split("::")[0]]
            times["tests"] += 1
            times.update(line)
    columns = ["tests", "cpu", "wall", "trace", "lower", "compile", "num_compile"]
    files["all"] = sum(files.values(), collections.Counter())
    print(*(f"{column:>11}" for column in columns))
    for name, times in sorted(files.items(), key=lambda pair: -pair[1]["cpu"]):
        print(*(f"{times[column]:11.1f}" for column in columns), name)


if __name__ == "__main__":
    main(sys.argv[1])
