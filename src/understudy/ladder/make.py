"""Making one stage: the lock, the weights it begins with, the training, the one look at the test set, the record."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from understudy.data.dataset import Dataset
from understudy.data.long_tail import class_sizes
from understudy.errors import Interrupted, StageFailed
from understudy.ladder.graph import Job
from understudy.ladder.networks import (
    CALIBRATION,
    built,
    described,
    file_of,
    finished,
    rebuilt,
    structure_of,
    training_images,
)
from understudy.ladder.spoken import hears, signal_files
from understudy.ladder.stage import BETWEEN
from understudy.models.describe import architecture_of
from understudy.models.fake_quantisation import calibrate
from understudy.models.peers import weights_of_peer
from understudy.models.preprocessing import Preprocessing
from understudy.models.weights import put_weights, read_weights
from understudy.randomness import stream_seed
from understudy.store.keys import hash_of_tensors
from understudy.store.results import ARTEFACTS, METRICS, OUTPUTS, WEIGHTS, Result, Store
from understudy.structure.cost import cost as cost_of
from understudy.tasks import Classification
from understudy.tasks.comparison import agreement
from understudy.training import health as health_of
from understudy.training import precision
from understudy.training.clock import Progress
from understudy.training.evaluate import outputs
from understudy.training.loop import Trained, fit
from understudy.training.settings import Training
from understudy.training.teachers import Lookup, Teacher

_LOOKED_AT = ("validation", "test")  # splits, once, when a stage is finished


def make(
    job: Job,
    *,
    store: Store,
    dataset: Dataset,
    progress: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda sentence: None,
    core_free: Callable[[], bool] = lambda: False,
) -> tuple[Result, bool] | None:
    """The result of ``job``, from the store or made now; None while another process makes it.

    Returns:
        the result and whether it was there already.

    Raises:
        Interrupted: ``stop`` said so; the stage goes on from its checkpoint next time.
        StageFailed, BadInput, CannotWrite: see ``understudy.training.loop.fit``.
        Damaged: the weights of an input differ from their checksum.
    """
    with store.lock(job.key) as mine:
        if not mine:
            return None
        there = store.result(job.key)
        if there is not None:
            store.used(there)
            return there, True
        training = job.look
        with precision.as_in_a_stage(training):
            return _make(job, store, dataset, training, progress, stop, say, core_free), False


def _make(
    job: Job,
    store: Store,
    dataset: Dataset,
    training: Training,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    say: Callable[[str], None],
    core_free: Callable[[], bool],
) -> Result:
    stage = job.stage
    preprocessing = stage.network.preprocessing(dataset)
    torch.manual_seed(stream_seed(job.seed, "initial weights"))
    counts = class_sizes(dataset.train.labels, classes=len(dataset.class_names))
    task = Classification(label_smoothing=training.label_smoothing, train_counts=tuple(counts))
    trained: Trained | None = None
    warnings: list[str] = []
    if stage.network.is_logits:
        return _keep(job, None, task, training, preprocessing, store, dataset, None, stop, [], say)
    if stage.choice is not None:
        from understudy.ladder.choosing import chosen  # needs an extra

        found = chosen(job, store=store, dataset=dataset, training=training, say=say)
        model = found.model.to(training.device)
        return _keep(
            job, model, task, training, preprocessing, store, dataset, None, stop, [], say, found.record
        )
    model = built(job, store, dataset, start=partial(_begin, job, store))
    if stage.network.file is not None or stage.weights is not None or job.taken is not None:
        model.to(training.device)
    else:
        assert stage.method is not None
        warnings += _teachers_checked(job, store, dataset)
        for sentence in warnings:
            say(sentence)
        if stage.quantised:
            calibrate(model, training_images(dataset, preprocessing, most=CALIBRATION))
        trained = fit(
            model,
            stage.method.for_stage(teachers=len(job.teachers)),
            # the loop averages metrics over batches, and a batch need not hold every group of classes
            task=replace(task, train_counts=None),
            dataset=dataset,
            views=job.views,
            preprocessing=preprocessing,
            teachers=[_teacher(teacher, job, store, dataset) for teacher in job.teachers],
            training=training,
            seed=job.seed,
            folder=store.place(job.key),
            signals=job.signals,
            handed=[store.artefacts(finished(store, teacher)) for teacher in job.teachers],
            core_free=core_free,
            progress=progress,
            stop=stop,
            say=say,
        )
        model = trained.model
    return _keep(job, model, task, training, preprocessing, store, dataset, trained, stop, warnings, say)


def _begin(job: Job, store: Store, model: nn.Module) -> None:
    """Puts in the weights that a stage begins with, where it does not begin with those drawn for it."""
    stage = job.stage
    if stage.network.file is not None:
        return
    if stage.weights is not None:
        put_weights(model, _unchanged(stage.weights, job.definition["weights"]), source=str(stage.weights))
    elif job.taken is not None:
        peers = store.weights(finished(store, job.taken))
        put_weights(model, weights_of_peer(peers), source=job.taken.name)
    elif isinstance(stage.start, Path):
        tensors = _unchanged(stage.start, job.definition["start"]["file"])
        put_weights(model, tensors, source=str(stage.start), new_head=True)
    elif job.start is not None:
        put_weights(model, store.weights(finished(store, job.start)), source=job.start.name, new_head=True)


def _unchanged(path: Path, expected: str) -> dict[str, Tensor]:
    """The tensors of a file that the stage's key knows by their hash."""
    tensors = read_weights(path)
    if hash_of_tensors(tensors) != expected:
        raise StageFailed(f"{path} has changed since the run began. Run the same command again.")
    return tensors


def _keep(
    job: Job,
    model: nn.Module | None,
    task: Classification,
    training: Training,
    preprocessing: Preprocessing,
    store: Store,
    dataset: Dataset,
    trained: Trained | None,
    stop: Callable[[], bool],
    warnings: list[str],
    say: Callable[[str], None],
    found: Mapping[str, Any] | None = None,
) -> Result:
    """Looks at validation and test once, says how the training went, and writes everything down.

    Without a model there are only its logits, which are looked up.
    """

    def stopped() -> None:
        if stop():
            raise Interrupted("stopped while the finished stage was looked at")

    if model is None:
        kept = job.stage.network.answers(dataset, sha256=file_of(job))
        looked = {
            name: torch.from_numpy(kept[name]) if name in kept else torch.zeros(0, 0) for name in _LOOKED_AT
        }
    else:
        look = partial(
            outputs,
            model,
            preprocessing=preprocessing,
            device=training.device,
            workers=training.workers,
            autocast=partial(precision.autocast, training),
            stop=stopped,
        )
        looked = {name: look(getattr(dataset, name)) for name in _LOOKED_AT}
    answers: dict[str, torch.Tensor] = {}
    figures: dict[str, dict[str, float]] = {}
    for name in _LOOKED_AT:
        labels = torch.tensor(getattr(dataset, name).labels)
        answers[name], answers[f"{name}_labels"] = looked[name], labels
        figures[name] = task.metrics(answers[name], labels)
    if not all(torch.isfinite(answer).all() for answer in answers.values()):
        raise StageFailed(
            "the finished network gives answers that are not finite numbers. Try a smaller training.lr."
        )
    stage = job.stage
    cost, smaller = job.cost, dict(found or {})
    if model is not None and job.is_smaller:
        cost = cost_of(model, channels=dataset.channels, size=tuple(stage.network.arguments(dataset)["size"]))
        structure = None if found else structure_of(job, store)
        smaller |= {} if structure is None else {"structure": structure.as_dict()}
    # what a file holds is not kept a second time
    own = {} if model is None or stage.network.file is not None else model.state_dict()
    weights = {name: tensor.detach().cpu() for name, tensor in own.items()}
    health = _health(job, store, answers["validation"], _log(store, job) if trained else [])
    noticed = health_of.training_warnings(
        _log(store, job) if trained else [],
        classes=len(dataset.class_names),
        samples=len(dataset.validation),
        batches=trained.batches if trained else 0,
        answers=stage.role not in BETWEEN,
    )
    for sentence in (*_in_words(health), *noticed):
        say(sentence)
    record = {
        "name": job.name,
        "seed": job.seed,
        "definition": job.definition,
        "model": stage.network.label,
        "network": described(job, dataset),
        "architecture": architecture_of(
            nn.Module() if model is None else model.cpu(),
            stage.network.name,
            stage.network.arguments(dataset),
        ),
        "preprocessing": preprocessing.definition(),
        "teachers": [teacher.key for teacher in job.teachers],
        "parameters": cost.parameters,
        "multiply_adds": cost.multiply_adds,
        "epochs": training.epochs if trained else 0,
        "steps": trained.steps if trained else 0,
        "skipped": trained.skipped if trained else 0,
        "seconds": round(trained.seconds, 3) if trained else 0.0,
        "metrics": dict(trained.metrics) if trained else {},
        "health": health,
        "warnings": [*warnings, *noticed],
        "validation": figures["validation"],
        "test": figures["test"],
        "environment": precision.environment(training.device),
        **smaller,
    }
    tensors: dict[str, Mapping[str, torch.Tensor]] = {WEIGHTS: weights, OUTPUTS: answers}
    if trained is not None and trained.artefacts:
        tensors[ARTEFACTS] = trained.artefacts
    return store.finish(job.key, record, tensors)


def _teachers_checked(job: Job, store: Store, dataset: Dataset) -> list[str]:
    """Before teaching starts: is every teacher better than guessing?"""
    return [
        sentence
        for teacher in job.teachers
        for sentence in health_of.teacher_warnings(
            teacher.name,
            finished(store, teacher).record["validation"],
            classes=len(dataset.class_names),
            samples=len(dataset.validation),
        )
    ]


def _log(store: Store, job: Job) -> list[dict[str, Any]]:
    lines = (store.place(job.key) / METRICS).read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _health(
    job: Job, store: Store, validation: torch.Tensor, log: list[dict[str, Any]]
) -> dict[str, dict[str, float]]:
    """Agreement with each teacher on the validation split, and each part's share of the gradient."""
    agreements = {}
    if len(validation):
        for teacher in job.teachers:
            theirs = store.outputs(finished(store, teacher))["validation"]
            agreements[teacher.name] = agreement(theirs, validation)
    return {"agreement": agreements, "gradient": health_of.mean_shares(log)}


def _in_words(health: dict[str, dict[str, float]]) -> list[str]:
    said = [f"agrees with {name} on {100 * share:.1f} %" for name, share in health["agreement"].items()]
    if len(health["gradient"]) > 1:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in health["gradient"].items())
        said.append(f"gradient: {shares}")
    return ["; ".join(said)] if said else []


def _teacher(teacher: Job, job: Job, store: Store, dataset: Dataset) -> Teacher | Lookup:
    network = teacher.stage.network
    if network.is_logits:
        return Lookup(answers=torch.from_numpy(network.answers(dataset, sha256=file_of(teacher))["train"]))
    kept = signal_files(teacher, job, store=store, dataset=dataset) if hears(job) else None
    if kept is not None:
        kept = replace(kept, weights=finished(store, teacher).record["files"][WEIGHTS]["sha256"])
    return Teacher(
        load=partial(rebuilt, teacher, store, dataset),
        preprocessing=network.preprocessing(dataset),
        name=teacher.name,
        kept=kept,
    )
