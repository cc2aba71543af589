"""A student as a file for the device: exported, proved to answer as before, measured. Importing it loads nothing heavy."""

from __future__ import annotations
