"""What is kept between runs: the result of every stage under the key of what decides it."""

from __future__ import annotations

from understudy.store.keys import canonical, key_of
from understudy.store.results import Result, Store

__all__ = ["Result", "Store", "canonical", "key_of"]
