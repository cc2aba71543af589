"""Text that Markdown shows as it is."""

from __future__ import annotations

import re

from understudy.report.numbers import plain


def escaped(text: object) -> str:
    r"""``text`` on one line with every character that Markdown or HTML would read as markup written as itself.

    >>> print(escaped("a|b <i> *c* [d](e) `f` https://g h_i _j_"))
    a\|b \<i> \*c\* \[d\](e) \`f\` https\://g h_i \_j\_
    >>> print(escaped("- 1."), escaped("1. x"), escaped("1.5"))
    \- 1. 1\. x 1.5
    """
    said = re.sub(r"([\\`*\[\]<|~&#$@]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", plain(text))
    said = re.sub(r"(?<=www)\.|:(?=//)", lambda found: "\\" + found[0], said)  # no links of their own
    return re.sub(r"^(\d*)([-+=>]|(?<=\d)[.)](?=\s|$))", r"\1\\\2", said)  # nor a list, nor a quotation


def fenced(text: str, language: str = "") -> str:
    """A block of code whose fence is longer than any row of back ticks in it.

    >>> print(fenced("a ``` b"))
    ````
    a ``` b
    ````
    """
    fence = "`" * max(3, 1 + max((len(row) for row in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"
