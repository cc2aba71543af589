"""Figures as people read them; units are in the text or, in tables, in the header."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len

NOTHING = "–"  # stands where there is no figure, so that it is never mistaken for a zero


def percent(fraction: float) -> str:
    """A fraction in percent with two decimals, without the sign.

    >>> percent(0.61424)
    '61.42'
    """
    return f"{100 * fraction:.2f}"


def accuracy(mean: float | None, std: float | None = None) -> str:
    """Mean and sample deviation of fractions, in percent; without a deviation nothing is claimed about it.

    >>> accuracy(0.6142, 0.0031), accuracy(0.6142), accuracy(None)
    ('61.42 ± 0.31', '61.42', '–')
    """
    if mean is None:
        return NOTHING
    return percent(mean) if std is None else f"{percent(mean)} ± {percent(std)}"


def points(difference: float | None) -> str:
    """A difference of two fractions in percentage points, always with its sign.

    >>> points(0.0123), points(-0.004), points(-0.000001), points(None)
    ('+1.23', '-0.40', '0.00', '–')
    """
    if difference is None:
        return NOTHING
    text = f"{100 * difference:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def interval(low_high: Sequence[float] | None) -> str:
    """An interval of fractions, in percent; empty where there is none.

    >>> interval((0.58, 0.6012)), interval(None)
    ('58.00 to 60.12', '')
    """
    return f"{percent(low_high[0])} to {percent(low_high[1])}" if low_high else ""


def p_value(p: float | None) -> str:
    """A p with three decimals, and never as zero.

    >>> p_value(0.0214), p_value(0.00003), p_value(1.0), p_value(None)
    ('0.021', '<0.001', '1.000', '–')
    """
    if p is None:
        return NOTHING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def tally(number: float | None) -> str:
    """How many, on average: whole where it is whole, else with one decimal.

    >>> tally(31.0), tally(30.667), tally(0), tally(None)
    ('31', '30.7', '0', '–')
    """
    if number is None:
        return NOTHING
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def count(number: float | None) -> str:
    """A count with three figures and k, M or G.

    >>> [count(n) for n in (0, 999, 1_234, 56_789, 999_600, 11_173_962, 1_000_000_000)]
    ['0', '999', '1.23k', '56.8k', '1.00M', '11.2M', '1.00G']
    """
    if number is None:
        return NOTHING
    if abs(number) < 1000:
        return f"{number:g}"
    scaled = float(number)
    for letter in ("k", "M", "G"):
        scaled /= 1000
        if abs(scaled) < 999.5 or letter == "G":
            break
    return three_figures(scaled) + letter


def mmac(multiply_adds: int | None) -> str:
    """Millions of multiply-adds (MMAC) with three figures.

    >>> [mmac(n) for n in (0, 400, 41_250, 3_142_000, 41_300_000, 4_089_184_256)]
    ['0', '<0.001', '0.041', '3.14', '41.3', '4089']
    """
    if multiply_adds is None:
        return NOTHING
    if 0 < multiply_adds < 1000:
        return "<0.001"
    return "0" if multiply_adds == 0 else three_figures(multiply_adds / 1e6)


def three_figures(number: float) -> str:
    """Three figures, never an exponent; three decimals at most.

    >>> three_figures(9.996), three_figures(0.12345), three_figures(1234.5)
    ('10.0', '0.123', '1234')
    """
    decimals = next((d for d, limit in ((3, 0.9995), (2, 9.995), (1, 99.95)) if abs(number) < limit), 0)
    return f"{number:.{decimals}f}"


def size(count: int) -> str:
    """Bytes with three figures.

    >>> size(999), size(3_650), size(12_345_678)
    ('999 bytes', '3.65 kB', '12.3 MB')
    """
    if count < 1000:
        return f"{count} bytes"
    return f"{three_figures(count / 1e6)} MB" if count >= 999_500 else f"{three_figures(count / 1e3)} kB"


def duration(seconds: float | None) -> str:
    """A time with its two largest units.

    >>> [duration(s) for s in (0, 0.31, 7.26, 59.6, 80, 119.7, 3600, 7509, 100_000)]
    ['0 s', '0.3 s', '7.3 s', '1 min', '1 min 20 s', '2 min', '1 h', '2 h 5 min', '1 d 4 h']
    >>> duration(None)
    '–'
    """
    if seconds is None:
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s" if seconds >= 0.05 else "0 s"
    if round(seconds) < 3600:
        return _two_units(round(seconds), 60, "min", "s")
    if round(seconds / 60) < 24 * 60:
        return _two_units(round(seconds / 60), 60, "h", "min")
    return _two_units(round(seconds / 3600), 24, "d", "h")


def _two_units(whole: int, size: int, big: str, small: str) -> str:
    return " ".join(f"{n} {unit}" for n, unit in zip(divmod(whole, size), (big, small), strict=True) if n)


def plain(text: object) -> str:
    """``text`` on one line, without control characters: names and messages may come from anywhere.

    >>> plain("two\\nlines \\x1b[31mred")
    'two lines [31mred'
    """
    joined = " ".join(str(text).split())
    return "".join(letter for letter in joined if letter.isprintable())


def shortened(text: str, width: int) -> str:
    """``text`` cut in its middle to ``width`` characters: often only the end of a name tells it from others.

    >>> shortened("dense/plain_cnn-8, seed 1", 17), shortened("dense", 17)
    ('dense/pl…, seed 1', 'dense')
    """
    if cell_len(text) <= width:
        return text
    left, right = "", ""
    while cell_len(left + right) + cell_len(text[len(left)]) < width:
        left = text[: len(left) + 1]
        if cell_len(left + right) + cell_len(text[-len(right) - 1]) < width:
            right = text[-len(right) - 1 :]
    return f"{left}…{right}"


def listing(words: list[str]) -> str:
    """Words in a sentence.

    >>> listing(["a"]), listing(["a", "b"]), listing(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
