"""Few shapes, few programs: sizes are rounded, so that runs of different sizes share a compiled program."""


def power_of_two_from(number: int) -> int:
    """The least power of two >= a number >= 1."""
    return 1 << (number - 1).bit_length()


def power_of_two_to(number: int) -> int:
    """The greatest power of two <= a number >= 1."""
    return 1 << (number.bit_length() - 1)


def roomy(num_bars: int) -> int:
    """The next multiple of an eighth of the next lower power of two, and of 64: at most an eighth more."""
    step = max(64, power_of_two_to(num_bars) // 8)
    return -(-num_bars // step) * step
