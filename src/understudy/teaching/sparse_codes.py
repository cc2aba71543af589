"""Sparse representation matching: dictionaries learnt on the teacher, and a student that begins by telling its codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from understudy.errors import BadInput, listed, suggestion
from understudy.losses.sparse_codes import (
    Dictionary,
    atoms_of,
    image_labels,
    image_loss,
    pixel_labels,
    pixel_loss,
    reconstruction_loss,
    sparsity_of,
)
from understudy.models.features import check_layers, check_pairs
from understudy.teaching.method import Beginning, Method, Needs, Step

if TYPE_CHECKING:
    from torch import Tensor, nn

LABELS = ("both", "pixel", "image")
LOCAL_LOGITS = ("sigmoid", "pre_sigmoid")
TEACHER_MODES = ("eval", "train")


@dataclass(kw_only=True)
class Dictionaries(Method):
    """The first stage: for each layer of the teacher a dictionary whose sparse codes give its features back.

    With similarities ``s = sigmoid(D^T x + c)`` at each position of the features x, of which the k largest stay (psi)::

        L = sum_layers mean (D psi - x)^2

    The stage's network is the teacher itself, which stays as it is, in eval mode unless ``teacher_mode`` says otherwise.

    Attributes:
        layers: of the teacher, by name.
        atoms: M is so many times the layer's channels D, truncated.
        sparsity: k is this share of M, truncated, at least 1; in (0, 1].
        teacher_mode: ``eval``, or ``train`` as in the official code: features are normalised by the statistics of their
            batch, and the running ones drift with each batch. The network that the stage leaves has those, so the next
            stage takes its codes of it; whoever is taught by the teacher itself is not touched.

    References:
        Tran et al. 2021, "Knowledge Distillation by Sparse Representation Matching", and the first author's code
        (official). That takes the dictionaries of the lowest loss in training; ours are those of the last step.
    """

    name = "dictionaries"

    layers: tuple[str, ...]
    atoms: float = 2.0
    sparsity: float = 0.02
    teacher_mode: Literal["eval", "train"] = "eval"
    model: nn.Module | None = field(default=None, init=False, compare=False, repr=False)
    dictionaries: dict[str, Dictionary] = field(default_factory=dict, init=False, compare=False, repr=False)
    kept: dict[str, int] = field(default_factory=dict, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_codes(self.atoms, self.sparsity)
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise BadInput("dictionaries need the names of layers, each once.")
        if self.teacher_mode not in TEACHER_MODES:
            raise BadInput(
                f"sparse_codes.teacher_mode {self.teacher_mode!r} is none of {', '.join(TEACHER_MODES)}."
            )

    def definition(self, *, teachers: int) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "layers": list(self.layers),
            "atoms": self.atoms,
            "sparsity": self.sparsity,
            **({} if self.teacher_mode == "eval" else {"teacher_mode": self.teacher_mode}),
        }

    @property
    def trains_student(self) -> bool:
        return False

    def needs(self) -> Needs:
        return Needs(features=self.layers)

    def for_stage(self, *, teachers: int) -> Dictionaries:
        return replace(self)

    def begin(self, beginning: Beginning) -> None:
        check_layers(self.layers, beginning.shapes, whose="the teacher")
        self.model = beginning.model
        for layer in self.layers:
            shape = beginning.shapes[layer]
            if len(shape) not in (1, 3):
                raise BadInput(
                    f"the teacher's {layer!r} gives {'x'.join(map(str, shape))} an image, which is no feature map and not "
                    f"pooled: name another layer."
                )
            channels = shape[0]
            self.dictionaries[layer] = Dictionary(channels, atoms_in(layer, channels, self.atoms))
            self.kept[layer] = sparsity_of(channels, atoms=self.atoms, sparsity=self.sparsity)

    def modules(self) -> Mapping[str, nn.Module]:
        return {
            f"dictionary{i}": self.dictionaries[layer]
            for i, layer in enumerate(self.layers)
            if self.dictionaries
        }

    def loss(self, step: Step) -> dict[str, Tensor]:
        features = self._features(step)
        parts = {
            layer: reconstruction_loss(self.dictionaries[layer], features[layer], self.kept[layer]).mean()
            for layer in self.layers
        }
        return {"total": torch.stack([*parts.values()]).sum(), **parts}

    @torch.no_grad()
    def _features(self, step: Step) -> Mapping[str, Tensor]:
        if self.teacher_mode == "eval":
            return step.student_features(step.batch)[1]
        assert self.model is not None, "the method has not begun"
        self.model.train()
        try:
            return step.student_features(step.batch)[1]
        finally:
            self.model.eval()


@dataclass(kw_only=True)
class SparseCodes(Method):
    """The second stage: the student learns to tell the codes of the teacher's features; no labels of the task.

    At each pair of layers the codes psi of the teacher give a label for each position (the strongest atom) and one for
    the image (the mean g of psi over positions). The student has a predictor of its own, ``p = sigmoid(E^T f + c')``,
    all atoms, trained with it and thrown away afterwards::

        L = sum_layers [ CE(p, argmax psi) + BCE(mean p, g) ]

    The stage that follows begins with these weights and distils as usual. The classifier has no gradient here.

    Attributes:
        pairs: layers ``(student's, teacher's)``, of one feature-map size.
        atoms, sparsity: of the dictionaries, see ``Dictionaries``.
        labels: ``both`` terms, ``pixel`` (the first) or ``image`` (the second).
        local_logits: what the softmax of the first term is taken of. ``sigmoid``: p, numbers in (0, 1), as in the
            official code, so that this term never gets small; ``pre_sigmoid``: what goes into the sigmoid.
        dictionary_layers: from a layer of the teacher to the one on which its dictionary was learnt, where these differ;
            they have as many channels. The official code does so on ImageNet: the atoms of ``layer1`` code ``maxpool``.

    The one teacher of the stage is that of dictionaries, which hands them on.

    References:
        As ``Dictionaries``.
    """

    name = "sparse_codes"

    pairs: tuple[tuple[str, str], ...]
    atoms: float = 2.0
    sparsity: float = 0.02
    labels: Literal["both", "pixel", "image"] = "both"
    local_logits: Literal["sigmoid", "pre_sigmoid"] = "sigmoid"
    dictionary_layers: Mapping[str, str] = field(default_factory=dict)
    dictionaries: list[Dictionary] = field(default_factory=list, init=False, compare=False, repr=False)
    predictors: list[Dictionary] = field(default_factory=list, init=False, compare=False, repr=False)
    kept: list[int] = field(default_factory=list, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_codes(self.atoms, self.sparsity)
        check_some(self.name, self.pairs)
        for what, value, possible in (
            ("labels", self.labels, LABELS),
            ("local_logits", self.local_logits, LOCAL_LOGITS),
        ):
            if value not in possible:
                raise BadInput(f"sparse_codes.{what} {value!r} is none of {', '.join(possible)}.")
        learnt_on(self.pairs, self.dictionary_layers)

    def definition(self, *, teachers: int) -> dict[str, Any]:
        others = {layer: other for layer, other in sorted(self.dictionary_layers.items()) if layer != other}
        return {
            "name": self.name,
            "version": self.version,
            "pairs": [list(pair) for pair in self.pairs],
            "atoms": self.atoms,
            "sparsity": self.sparsity,
            "labels": self.labels,
            **({"local_logits": self.local_logits} if self.labels != "image" else {}),
            **({"dictionary_layers": others} if others else {}),
        }

    def needs(self) -> Needs:
        return needs_of(self.pairs)

    def check(self, *, teachers: int) -> None:
        check_teachers(self.name, teachers)

    def for_stage(self, *, teachers: int) -> SparseCodes:
        self.check(teachers=teachers)
        return replace(self)

    def begin(self, beginning: Beginning) -> None:
        shapes = begun(self.pairs, beginning)
        layers = learnt_on(self.pairs, self.dictionary_layers)
        for (_, layer), (student, teacher) in zip(self.pairs, shapes, strict=True):
            atoms = atoms_in(layer, teacher[0], self.atoms)
            dictionary = Dictionary(teacher[0], atoms).requires_grad_(False)
            if beginning.handed is not None:
                learnt = self.dictionary_layers.get(layer, layer)
                _take(dictionary, beginning.handed[0], layer, layers.index(learnt))
            self.dictionaries.append(dictionary.to(next(beginning.model.parameters()).device))
            self.kept.append(sparsity_of(teacher[0], atoms=self.atoms, sparsity=self.sparsity))
            self.predictors.append(Dictionary(student[0], atoms))

    def modules(self) -> Mapping[str, nn.Module]:
        return {f"predictor{i}": predictor for i, predictor in enumerate(self.predictors)}

    def artefacts(self) -> Mapping[str, Tensor]:
        return {}  # the predictors are thrown away

    def loss(self, step: Step) -> dict[str, Tensor]:
        output, student = step.student_features(step.batch)
        del output
        teacher = step.teacher_features(0, step.batch)
        local, whole = [], []
        for (own, other), dictionary, predictor, kept in zip(
            self.pairs, self.dictionaries, self.predictors, self.kept, strict=True
        ):
            with torch.no_grad():
                codes = dictionary.codes(teacher[other], kept)
            pre = predictor.pre_similarities(student[own])
            if self.labels != "image":
                local.append(pixel_loss(pre, pixel_labels(codes), logits=self.local_logits).mean())
            if self.labels != "pixel":
                whole.append(image_loss(pre.sigmoid(), image_labels(codes)).mean())
        parts = {
            name: torch.stack(terms).sum() for name, terms in (("pixels", local), ("images", whole)) if terms
        }
        return {"total": torch.stack([*parts.values()]).sum(), **parts}


def _take(dictionary: Dictionary, handed: Mapping[str, Tensor], layer: str, position: int) -> None:
    """Gives the dictionary of a layer the weights that ``Dictionaries`` left, which count layers in order."""
    own = {name: handed.get(f"dictionary{position}.{name}") for name in dictionary.state_dict()}
    for name, wanted in dictionary.state_dict().items():
        found = own[name]
        if found is None or found.shape != wanted.shape:
            sizes = "none" if found is None else f"one of shape {tuple(found.shape)}"
            raise BadInput(
                f"sparse codes need a dictionary for the teacher's {layer!r}, its {name} of shape {tuple(wanted.shape)}; the "
                f"teacher's stage left {sizes}. Let it learn them (Dictionaries) with the same layers in order and atoms."
            )
    dictionary.load_state_dict(own)


def learnt_on(pairs: tuple[tuple[str, str], ...], others: Mapping[str, str]) -> tuple[str, ...]:
    """The teacher's layers on which the dictionaries of ``pairs`` are learnt, each once, in order.

    Args:
        pairs: layers ``(student's, teacher's)``.
        others: see ``SparseCodes.dictionary_layers``.

    Raises:
        BadInput: one of ``others`` is for a layer that is in no pair.
    """
    layers = tuple(dict.fromkeys(teacher for _, teacher in pairs))
    for layer in others:
        if layer not in layers:
            raise BadInput(
                f"sparse_codes.dictionary_layers names {layer!r}, which is matched with no layer of the student. Matched "
                f"are {listed(layers)}.{suggestion(layer, layers)}"
            )
    return tuple(dict.fromkeys(others.get(layer, layer) for layer in layers))


def atoms_in(layer: str, channels: int, atoms: float) -> int:
    """How many atoms a layer's dictionary has.

    Raises:
        BadInput: not one.
    """
    try:
        return atoms_of(channels, atoms)
    except ValueError as error:
        raise BadInput(f"sparse_codes.atoms for the layer {layer!r}: {error}.") from None


def check_some(name: str, pairs: tuple[tuple[str, str], ...]) -> None:
    """Whether there are pairs of layers at all."""
    if not pairs or len(set(pairs)) != len(pairs):
        raise BadInput(f"{name} need pairs of layers (student's, teacher's), each once; got {list(pairs)}.")


def check_codes(atoms: float, sparsity: float) -> None:
    """Whether dictionaries can be that large and codes that sparse."""
    if not 0 < atoms <= 100:
        raise BadInput(
            f"sparse_codes.atoms, a multiple of a layer's channels, is above 0 and at most 100; got {atoms}."
        )
    if not 0 < sparsity <= 1:
        raise BadInput(f"sparse_codes.sparsity is the share of atoms in a code, in (0, 1]; got {sparsity}.")


def needs_of(pairs: tuple[tuple[str, str], ...]) -> Needs:
    """Features of both sides of pairs ``(student's, teacher's)``, the teacher being the stage's only one."""
    return Needs(
        features=tuple(dict.fromkeys(student for student, _ in pairs)),
        teacher_features=(tuple(dict.fromkeys(teacher for _, teacher in pairs)),),
    )


def check_teachers(name: str, teachers: int) -> None:
    """Whether there is the one teacher whose layers are matched."""
    if teachers != 1:
        raise BadInput(f"{name} match the layers of one teacher; the stage has {teachers}.")


def begun(
    pairs: tuple[tuple[str, str], ...], beginning: Beginning
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Shapes of both layers of each pair.

    Raises:
        BadInput: a layer that is not there, or feature maps of different sizes.
    """
    needs = needs_of(pairs)
    check_layers(needs.features, beginning.shapes, whose="the student")
    check_layers(needs.teacher_features[0], beginning.teacher_shapes[0], whose="the teacher")
    for student, teacher in pairs:  # one layer may have several partners
        check_pairs({student: teacher}, beginning.shapes, beginning.teacher_shapes[0])
    return [(beginning.shapes[student], beginning.teacher_shapes[0][teacher]) for student, teacher in pairs]
