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
        "metrics annualise by the kind of the index: weekdays are 252 to the year, months 12",
        "365 days of bars to the year turn 6.7 % a year of weekdays into 9.9 %",
        'year_freq="365D"',
    ),
    Difference(
        "periods and durations are calendar time, and bars stand beside",
        "bars times freq are 537 days for 781 on weekdays",
        "",
    ),
    Difference(
        "a denominator below 64 eps is zero: the ratio is NaN if the numerator is too, else infinite with its sign",
        "a lane that never trades must not win a sweep, and rounding is no risk",
        "",
    ),
    Difference(
        "a size within a hair of a lot is that lot: 1.0 in lots of 0.1 is ten lots",
        "0.1 is a little more than a tenth, and 0.9 is not what was ordered",
        "",
    ),
    Difference(
        "`deflated_sharpe_ratio` leaves out lanes without a finite Sharpe ratio",
        "one idle lane must not take the result from all others",
        "",
    ),
    Difference(
        "`up_capture` and `down_capture` compare geometric mean returns per bar",
        "half cash, half benchmark captures half, whatever the length of a bar",
        "",
    ),
    Difference(
        "`risk_free` and `required_return` are rates per year in every metric",
        "users know rates per year",
        "(1 + x) ** (1 / ann_factor) - 1 in vectorbt",
    ),
    Difference(
        "an asset that has had no price for 10 bars and 7 days is closed at its last close",
        "held at a price that nobody pays it freezes a part of the account, and its drift trades the rest",
        'delistings="hold"',
    ),
    Difference(
        "an account may owe cash: what a short position costs beyond the cash, where its asset leaves the market",
        "vectorbt raises for cash below zero; here purchases wait until sales have brought some",
        'delistings="hold"',
    ),
    Difference(
        "the drift of an asset without a price of the bar counts in no trigger",
        "it cannot be traded back, so that a hole in the prices would fire at every bar",
        'drift_without_price="counts"',
    ),
    Difference(
        "a policy's account that is worth nothing after a close is closed at the next bar and never trades again",
        "it can pay for nothing; orders of a size in units would go on with money that is not there",
        "",
    ),
    Difference(
        "after the first value of 0 or less returns are 0, ratios are NaN, and `total_return` is last value over first",
        "a lane that lost four times its cash had a total return of +100 % and won the sweep",
        "",
    ),
)
