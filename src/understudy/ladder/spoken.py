"""Which kept answers a job reads: the key of a teacher's signals, known before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from understudy.ladder.graph import Job
from understudy.store.keys import key_of
from understudy.store.results import Store
from understudy.store.signals import SignalFiles

if TYPE_CHECKING:
    from understudy.data.dataset import Dataset


def hears(job: Job) -> bool:
    """Whether the job learns from logits of teachers."""
    method = job.stage.method
    return bool(job.teachers) and method is not None and method.needs().logits


def signal_files(teacher: Job, job: Job, *, store: Store, dataset: Dataset) -> SignalFiles | None:
    """Where the answers of ``teacher`` to the views of ``job`` are kept; None for one that is an array of logits.

    All that decides a bit of them is in the key: the teacher with its preprocessing, the data, policy and seed of
    the views, number format, threads, processor and release of torch (and of what else computes them), and what of an
    answer is kept. Which weights the teacher came out with is not known before it is trained: the files say it. Seeds,
    temperatures, losses and the other teachers are not, so whatever learns from the same teacher shares them.
    """
    from importlib.metadata import version

    from understudy.training.precision import arithmetic

    training = job.stage.training
    if teacher.stage.network.is_logits or training is None:
        return None
    classes = len(dataset.class_names)
    views = job.views.definition()
    views.pop("distinct", None)  # the views that there are, are the same
    numerics: dict[str, Any] = arithmetic(training)
    if job.views.policy.mixup:
        numerics["scipy"] = version("scipy")  # decides the last bit of a share
    file = teacher.stage.network.file
    if file is not None and file.suffix == ".onnx":
        numerics["onnxruntime"] = version("onnxruntime")
    definition = {
        "kind": "signals",
        "teacher": teacher.key,
        "data": dataset.fingerprint,
        "views": views,
        "numerics": numerics,
        "kept": job.signals.definition(classes=classes),
    }
    return SignalFiles(
        store=store,
        key=key_of(definition),
        definition=definition,
        samples=len(dataset.train),
        row_bytes=job.signals.row_bytes(classes=classes),
    )


def signals_of(jobs: Sequence[Job], *, store: Store, dataset: Dataset) -> dict[str, SignalFiles]:
    """All that ``jobs`` may read or write, by key.

    Raises:
        BadInput: another version wrote some of it.
    """
    found: dict[str, SignalFiles] = {}
    for job in jobs:
        if hears(job):
            for teacher in job.teachers:
                files = signal_files(teacher, job, store=store, dataset=dataset)
                if files is not None and files.key not in found:
                    files.check_version()
                    found[files.key] = files
    return found
