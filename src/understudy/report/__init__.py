"""What a run tells people: progress while it runs, tables, and one page that stands by itself."""

from __future__ import annotations
