"""The table of drawdowns."""

import numpy as np

from jaxsim.frames.results.drawdowns import DrawdownStatus
from jaxsim.frames.results.record_tables import LaneRecords, RecordTable, divide_floats


class DrawdownTable(RecordTable):
    """All drawdowns of the value, by lane and time: id (within the lane), the lane levels, peak_timestamp,
    start_timestamp (the bar after the peak), valley_timestamp, end_timestamp (recovery, or the last bar), peak_value,
    valley_value, end_value (currency), drawdown (a fraction, negative), status ("Active" or "Recovered")."""

    def __init__(self, source: LaneRecords):
        records = source.records
        columns = [(f"{x}_timestamp", source.index.take(records[f"{x}_idx"])) for x in _POINTS]
        columns += [(f"{x}_value", records[f"{x}_val"]) for x in _POINTS if x != "start"]
        columns.append(("drawdown", _depth(records, "valley")))
        columns.append(("status", np.array(["Active", "Recovered"], dtype=object)[records["status"]]))
        super().__init__(source, columns)

    def _statistics(self) -> dict[str, np.ndarray]:
        """Depths are positive here, and those titled "Max" or "Avg" leave an active drawdown out, as in vectorbt."""
        lanes, r = self._source, self._source.records
        over, active = r["status"] == DrawdownStatus.RECOVERED, r["status"] == DrawdownStatus.ACTIVE
        depth, bars = -_depth(r, "valley") * 100, r["end_idx"] - r["start_idx"] + active  # active: with the last bar
        rebound = divide_floats(r["end_val"] - r["valley_val"], r["valley_val"]) * 100
        recovered = divide_floats(r["end_val"] - r["valley_val"], r["peak_val"] - r["valley_val"]) * 100
        down, up = r["valley_idx"] - r["peak_idx"], r["end_idx"] - r["valley_idx"]
        covered = divide_floats(lanes.total(bars), len(lanes.index)) * 100
        return {
            "Coverage [%]": np.where(lanes.count() > 0, covered, np.nan),
            "Total Records": lanes.count(),
            "Total Recovered Drawdowns": lanes.count(over),
            "Total Active Drawdowns": lanes.count(active),
            "Active Drawdown [%]": lanes.mean(
                -_depth(r, "end") * 100, active
            ),  # at most one in a lane; as it stands now
            "Active Duration": lanes.mean(bars, active),
            "Active Recovery [%]": lanes.mean(recovered, active),
            "Active Recovery Return [%]": lanes.mean(rebound, active),
            "Active Recovery Duration": lanes.mean(up, active),
            "Max Drawdown [%]": lanes.greatest(depth, over),
            "Avg Drawdown [%]": lanes.mean(depth, over),
            "Max Drawdown Duration": lanes.greatest(bars, over),
            "Avg Drawdown Duration": lanes.mean(bars, over),
            "Max Recovery Return [%]": lanes.greatest(rebound, over),
            "Avg Recovery Return [%]": lanes.mean(rebound, over),
            "Max Recovery Duration": lanes.greatest(up, over),
            "Avg Recovery Duration": lanes.mean(up, over),
            "Avg Recovery Duration Ratio": lanes.mean(divide_floats(up, down), over),
        }


_POINTS = ("peak", "start", "valley", "end")


def _depth(records: np.ndarray, at: str) -> np.ndarray:
    return divide_floats(records[f"{at}_val"] - records["peak_val"], records["peak_val"])
