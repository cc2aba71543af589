"""Text in Markdown stays what it is."""

from __future__ import annotations

from understudy.report.markdown import escaped, fenced


def test_escaping_keeps_what_is_plain() -> None:
    for plain in ("dense/plain_cnn-8 x0.25", "wrn-40-2", "a (b), c: 5 %", "Größe → 猫"):
        assert escaped(plain) == plain


def test_a_fence_is_longer_than_any_in_its_text() -> None:
    for text in ("a", "a ``` b", "`````", "~~~ ``"):
        fence, *lines, last = fenced(text, "sh").splitlines()
        assert lines == [text]
        assert fence == f"{last}sh"
        assert last not in text
