"""The engines by name, and the run of a job by one of them."""

from collections.abc import Callable

from jaxsim.frames.results.ledger import Ledger
from jaxsim.frames.runs.compiled import run_compiled
from jaxsim.frames.runs.distributed import run_elsewhere
from jaxsim.frames.runs.job import Job
from jaxsim.frames.runs.reference import run_reference
from jaxsim.frames.runs.terms import Engine
from jaxsim.frames.system.workers import check_engine, is_distributed

#: The engines of this process. Others are those of `jaxsim.frames.system.workers`.
ENGINES = {"compiled": run_compiled, "reference": run_reference}


def checked(engine: Engine) -> Engine:
    """Raises ValueError unless this is the name of an engine, or a Dask client."""
    check_engine(engine, ENGINES)
    return engine


def execute(job: Job, engine: Engine, advance: Callable[[int], object]) -> list[Ledger]:
    """Simulate all lanes of a job: the ledgers of its groups, by size.

    advance: is told how many lanes have been simulated.
    Raises AllocationError, AllocatorError, OrderError or RejectedOrderError naming lane, asset and bar.
    """
    if isinstance(engine, str) and engine in ENGINES:
        return ENGINES[engine](job, advance)
    assert is_distributed(engine)
    return run_elsewhere(job, advance, engine)
