"""A stage makes one model from named inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from understudy.errors import BadInput
from understudy.teaching.method import Method
from understudy.training.settings import Training

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from understudy.data.dataset import Dataset, Origin
    from understudy.models.peers import PeerForm
    from understudy.models.preprocessing import Preprocessing
    from understudy.structure.budget import Budget
    from understudy.structure.cost import Cost

Role = Literal["teacher", "assistant", "preparation", "start", "student"]
BETWEEN = ("preparation", "start")  # what they answer is not compared with others


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which network a stage makes: a built-in, timm or torchvision name, a factory of one's own, or a teacher in a file.

    Attributes:
        name: such as ``plain_cnn-10``, ``timm/resnet18``; for a factory: what to call it in tables.
        width: factor on the channels of a built-in network.
        strip: every k x k convolution becomes 1 x ``strip`` (``understudy.models.strips``); None: as it is.
        strip_part: ``all`` of them, or the ``late`` half only.
        pretrained: begin with the weights that timm or torchvision publish.
        size: images are resized to this height and width (one number: both) before the network sees them; None: as the
            data has them.
        mean: of each channel, in units of 1.0 = 255; None: the training split's (or the pretrained weights' own).
        std: likewise.
        factory: called with ``classes``, ``channels`` and ``size`` as keywords, returns a module from images
            ``(batch, channels, height, width)`` to logits ``(batch, classes)``. Its initial weights come from torch's
            global generator, which is seeded before the call.
        version: of the factory; change it when the factory's code changes in a way that names, shapes and initial
            weights do not show.
        peers: how many such networks share their first layers and teach each other (``understudy.models.peers``); None:
            it is one network.
        file: a trained network as ONNX or ``torch.export`` program, or an ``.npz`` of its logits
            (``understudy.models.frozen_files``): known by its bytes, never trained, called by the file's name.
        note: what its label ends with; decides nothing.
    """

    name: str = ""
    width: float = 1.0
    strip: int | None = None
    strip_part: Literal["all", "late"] = "all"
    pretrained: bool = False
    size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    factory: Callable[..., nn.Module] | None = field(default=None, compare=False)
    version: str = ""
    peers: PeerForm | None = None
    file: Path | None = None
    note: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.size, int):
            object.__setattr__(self, "size", (self.size, self.size))
        for what in ("mean", "std"):
            if isinstance(getattr(self, what), int | float):
                raise BadInput(f"{what} has a number for each channel; got {getattr(self, what)!r}.")
        if self.file is not None:
            object.__setattr__(self, "file", Path(self.file))
            self._check_file(Path(self.file))
            return
        from understudy.models.limits import check_width
        from understudy.models.names import check_name

        if self.factory is None:
            check_name(self.name)
        elif not self.version:
            raise BadInput(
                f"the factory of {self.name!r} needs a version of your choice, such as version='1': "
                f"kept results are found again by it."
            )
        check_width(self.width)

    def _check_file(self, file: Path) -> None:
        from understudy.models.frozen_files import format_of

        said = {
            "name": self.name not in ("", file.name),
            "factory": self.factory is not None,
            "pretrained": self.pretrained,
            "width": self.width != 1,
            "strip": self.strip is not None,
            "peers": self.peers is not None,
        }
        for what in (what for what, is_said in said.items() if is_said):
            raise BadInput(f"{file} is a whole network and is called by its file: leave out {what}.")
        prepared = {"size": self.size, "mean": self.mean, "std": self.std}
        for what in (what for what, value in prepared.items() if value is not None):
            if format_of(file) == "logits":
                raise BadInput(f"{file} holds logits, which look at no image any more: leave out {what}.")
        format_of(file)
        object.__setattr__(self, "name", file.name)

    @property
    def is_logits(self) -> bool:
        """Whether there are only its answers, to the images as they are."""
        from understudy.models.frozen_files import format_of

        return self.file is not None and format_of(self.file) == "logits"

    @property
    def label(self) -> str:
        """What to call it in tables: the name, the width where it is not 1, and the form of its filters.

        >>> Network(name="plain_cnn-4", width=0.5).label
        'plain_cnn-4 x0.5'
        >>> Network(name="wrn-16-1", strip=3, strip_part="late").label
        'wrn-16-1 late 1x3'
        """
        width = "" if self.width == 1 else f" x{self.width:g}"
        part = "" if self.strip_part == "all" else f"{self.strip_part} "
        filters = "" if self.strip is None else f" {part}1x{self.strip}"
        peers = "" if self.peers is None else f" {self.peers.count} peers"
        return self.name + width + filters + peers + (f" {self.note}" if self.note else "")

    def arguments(self, dataset: Dataset) -> dict[str, Any]:
        """What ``build`` is called with on this data: classes, channels, size, and for built-ins the width."""
        size = self.preprocessing(dataset).size or (dataset.height, dataset.width)
        said: dict[str, Any] = {
            "classes": len(dataset.class_names),
            "channels": dataset.channels,
            "size": list(size),
        }
        if self.factory is None and self.file is None:
            said["width"] = self.width
        return said

    @property
    def alone(self) -> Network:
        """The network that each peer is."""
        return replace(self, peers=None)

    def build(self, dataset: Dataset, *, sha256: str | None = None) -> nn.Module:
        """The network with initial weights from torch's global generator; from a file, as it is there.

        Args:
            dataset: whose images and classes it must fit.
            sha256: of the file's bytes, where they must be those that were seen before.

        Raises:
            BadInput: the network cannot be built for images of this size.
        """
        arguments = self.arguments(dataset)
        arguments["size"] = tuple(arguments["size"])
        if self.peers is not None:
            from understudy.models.peers import peer_network

            shapes = {"channels": arguments["channels"], "size": arguments["size"]}
            try:
                return peer_network(lambda: self.alone.build(dataset), self.peers, **shapes)
            except BadInput as error:
                raise BadInput(f"{self.label}: {error}") from error
        if self.file is not None:
            from understudy.models.frozen_files import open_network

            return open_network(self.file, sha256=sha256, **arguments)
        if self.factory is not None:
            model = self.factory(**arguments)
        else:
            from understudy.models import build

            model = build(self.name, pretrained=self.pretrained, **arguments)
        if self.strip is None:
            return model
        from understudy.models.strips import stripped

        return stripped(model, self.strip, part=self.strip_part)

    def answers(self, dataset: Dataset, *, sha256: str | None = None) -> dict[str, np.ndarray]:
        """The logits in the file for each split, ``(samples, classes)`` float32 in the split's order.

        Args:
            dataset: whose images they are of.
            sha256: see ``build``.

        Raises:
            BadInput: rows or classes that do not fit; see ``understudy.models.logits_files.read_logits``.
        """
        from understudy.models.logits_files import read_logits

        assert self.file is not None
        origins = self._origins(dataset)
        images: dict[str, int] = {origin.part: origin.images for origin in origins.values()}
        found = read_logits(self.file, classes=len(dataset.class_names), images=images, sha256=sha256)
        return {split: found[origin.part][origin.rows] for split, origin in origins.items()}

    def _origins(self, dataset: Dataset) -> dict[str, Origin]:
        origins: dict[str, Origin] = {}
        for name, split in (
            ("train", dataset.train),
            ("validation", dataset.validation),
            ("test", dataset.test),
        ):
            if split.origin is None:
                raise BadInput(
                    f"{self.file} has a row for each image of a source, and the data {dataset.name} do not say where "
                    f"their images stand in theirs. Load them with understudy.load."
                )
            if len(split):
                origins[name] = split.origin
        return origins

    def preprocessing(self, dataset: Dataset) -> Preprocessing:
        """How images are prepared for it: its own statistics and size, else the pretrained weights', else the data's."""
        from understudy.models.preprocessing import Preprocessing, preprocessing_of

        own = None
        if self.factory is None and self.file is None:
            own = preprocessing_of(self.name, self.pretrained, channels=dataset.channels)
        mean = self.mean or (own.mean if own else dataset.mean)
        std = self.std or (own.std if own else dataset.std)
        for what, values in (("mean", mean), ("std", std)):
            if len(values) != dataset.channels:
                raise BadInput(
                    f"{self.name}: {what} has {len(values)} values, the images have {dataset.channels} channels. "
                    f"Give one value for each channel."
                )
        size = self.size or (own.size if own else None)
        return Preprocessing(mean=tuple(mean), std=tuple(std), size=size)

    def definition(self, dataset: Dataset) -> dict[str, Any]:
        """Its part of the key. A factory is known by version, names, shapes and initial weights, a file by its bytes."""
        if self.peers is not None:
            return {**self.alone.definition(dataset), "peers": [self.peers.count, self._split(dataset)]}
        prepared = self.preprocessing(dataset).definition()
        if self.file is not None:
            from understudy.models.file_checks import sha256_of
            from understudy.models.frozen_files import format_of

            known = {"file": sha256_of(self.file), "format": format_of(self.file)}
            if not self.is_logits:
                return {**known, **self.arguments(dataset), "preprocessing": prepared}
            # two sources can give the same splits from different rows
            rows = {
                name: [origin.part, hashlib.sha256(origin.rows.astype("<i8").tobytes()).hexdigest()]
                for name, origin in self._origins(dataset).items()
            }
            return {**known, "classes": len(dataset.class_names), "rows": rows}
        if self.factory is None:
            pretrained = {"pretrained": True} if self.pretrained else {}
            filters = {} if self.strip is None else {"strip": [self.strip, self.strip_part]}
            return {
                "name": self.name,
                **self.arguments(dataset),
                **pretrained,
                **filters,
                "preprocessing": prepared,
            }
        import torch

        from understudy.store.keys import hash_of_tensors

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            initial = hash_of_tensors(self.build(dataset).state_dict())
        return {
            "factory": self.version,
            "initial": initial,
            **self.arguments(dataset),
            "preprocessing": prepared,
        }

    def _split(self, dataset: Dataset) -> str:
        """Where the peers part, by name."""
        assert self.peers is not None
        if self.peers.split:
            return self.peers.split
        import torch

        from understudy.models.peers import last_stage

        with torch.random.fork_rng(devices=[]):
            return last_stage(self.alone.build(dataset))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A structure is chosen among what several searches found.

    Attributes:
        budget: what the network may cost.
        among: names of the stages that searched, each the same network with scales of its own; none: nothing was
            learnt, and all layers become narrower alike.
        blocks: weights of the network's blocks in the search: one of weight 0 keeps its channels.
        expected: what the network will cost, about, until it is known; decides nothing. None: all of the budget, and of
            what is not limited as much.
    """

    budget: Budget
    among: tuple[str, ...] = ()
    blocks: Mapping[str, float] = field(default_factory=dict)
    expected: Cost | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One model and what it is made from.

    Attributes:
        name: unique in its ladder; decides nothing but what it is called.
        network: what is made.
        role: ``teacher`` (learns from nobody), ``assistant``, ``preparation`` (of something that another stage's method
            takes), ``start`` (what a student begins with or is a part of, made anew for every seed), or ``student``: an
            arm of the comparison, made anew for every seed.
        teachers: names of the stages it learns from; their order matters to methods that treat the first apart.
        start: weights it begins with: another stage's name, or a file; where classes differ the head is new.
        structure: name of the stage that chose which of the network's channels there are; None: all of them.
        quantised: the network's weights and activations are rounded to int8 in training, as its exported file will
            (``understudy.models.fake_quantisation``); it begins with the weights of ``start``.
        taken: name of a stage of peers; nothing is trained, the network is the trunk and first peer of that one.
        choice: the stage is not trained: it chooses a structure, and its network is what is left.
        weights: a file of weights that are taken as they are; such a stage is not trained. For a network in a file it is
            that file.
        method: the way to teach.
        training: how; None with ``weights``, ``taken`` or ``choice``.
    """

    name: str
    network: Network
    role: Role = "student"
    teachers: tuple[str, ...] = ()
    start: str | Path | None = None
    structure: str | None = None
    quantised: bool = False
    taken: str | None = None
    choice: Choice | None = None
    weights: Path | None = None
    method: Method | None = None
    training: Training | None = None

    def __post_init__(self) -> None:
        if self.network.file is not None and self.weights is None:
            object.__setattr__(self, "weights", self.network.file)
        if isinstance(self.teachers, str):
            raise BadInput(
                f"stage {self.name!r}: teachers is a list of names; got {self.teachers!r}. Give [{self.teachers!r}]."
            )
        if self.network.file is not None and (self.structure or self.choice):
            raise BadInput(
                f"stage {self.name!r} is the file {self.network.file}, whose channels stay as they are."
            )
        if self.choice is not None:
            if self.teachers or self.start or self.structure or self.weights or self.training:
                raise BadInput(f"stage {self.name!r} chooses a structure, and nothing is trained in it.")
            return
        if self.taken is not None:
            if self.teachers or self.start or self.structure or self.weights or self.training:
                raise BadInput(
                    f"stage {self.name!r} is taken from {self.taken!r}, and nothing is trained in it."
                )
            return
        if self.weights is not None:
            for what, value in (("teachers", self.teachers), ("start", self.start)):
                if value:
                    raise BadInput(
                        f"stage {self.name!r} has weights and {what}: given weights are not trained."
                    )
            return
        if self.quantised and self.start is None:
            raise BadInput(
                f"stage {self.name!r} is quantised and begins with a trained network: name its start."
            )
        if self.quantised and self.training is not None and self.training.precision != "fp32":
            raise BadInput(
                f"stage {self.name!r} is quantised, and int8 is rounded from float32: set its precision to fp32."
            )
        if self.training is None or self.method is None:
            raise BadInput(f"stage {self.name!r} is trained and so needs a method and a training.")
        if len(set(self.teachers)) != len(self.teachers):
            raise BadInput(f"stage {self.name!r} names a teacher twice: {', '.join(self.teachers)}.")
        self.method.check(teachers=len(self.teachers))

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the stages it needs."""
        started = (self.start,) if isinstance(self.start, str) else ()
        shaped = tuple(name for name in (self.structure, self.taken) if name)
        return self.teachers + started + shaped + (self.choice.among if self.choice else ())
