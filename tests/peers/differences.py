"""Where jaxsim differs from vectorbt 1.2.0 on purpose. `docs/migrating-from-vectorbt.md` repeats the list for users."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """What differs, why, and the arguments that restore vectorbt's behaviour; "" if none does."""

    what: str
    why: str
    restored_by: str


DIFFERENCES = (
    Difference(
        "metrics count the bars from the first one on that may trade",
        "a strategy is not judged, nor its benchmark paid, for bars at which it cannot trade",
        "start=0",
    ),
    Difference(
        "periods and durations are calendar time, and bars stand beside",
        "bars times freq are 537 days for 781 on weekdays",
        "",
    ),
)
