"""The faults that `tools.mutants` plants, by the part of the package that they break."""

from tools.planted_faults import lanes, results, trading

MUTANTS = [*trading.MUTANTS, *lanes.MUTANTS, *results.MUTANTS]
