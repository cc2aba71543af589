"""What ``understudy plan`` forecasts for a recipe, as JSON: ``python -m benchmarks.predicted RECIPE.yaml STORE``."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> None:
    """Measures a few steps of each network, as the command does, and prints seconds and bytes."""
    began = time.perf_counter()
    from understudy.ladder.estimate import forecast
    from understudy.recipe import check, read_file
    from understudy.recipe.building import build
    from understudy.store import Store
    from understudy.training.memory import keep_pages

    keep_pages()
    built = build(check(read_file(Path(sys.argv[1]))))
    start = time.perf_counter() - began
    found = forecast(built.jobs, store=Store(Path(sys.argv[2])), dataset=built.dataset, start=start)
    said = {
        "seconds": found.seconds,
        "disk": found.stage_bytes + found.signal_bytes,
        "memory": found.memory,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
