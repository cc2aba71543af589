"""The keys of a recipe, their types and defaults."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from understudy.recipe.reading import written
from understudy.training.settings import Training

Shape = Literal["scratch", "direct", "chain", "dense", "paths", "pacemaker"]
Control = Literal[
    "scratch",
    "direct",
    "direct_long",
    "chain",
    "dense",
    "uniform",
    "structure_alone",
    "label_smoothing",
    "early_teacher",
    "mean_teachers",
    "logit_std",
    "dkd",
]
Compat = Literal["takd", "dgkd"]
PositiveInt = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Width = Annotated[float, Field(gt=0, le=16)]
Size = (
    Annotated[int, Field(ge=1, le=4096)]
    | tuple[Annotated[int, Field(ge=1, le=4096)], Annotated[int, Field(ge=1, le=4096)]]
)
Statistics = tuple[Annotated[float, Field(ge=-10, le=10)], ...]
Deviations = tuple[Annotated[float, Field(gt=0, le=10)], ...]
Name = Annotated[str, Field(min_length=1, max_length=200)]
StageName = Annotated[
    str, Field(min_length=1, max_length=200, pattern=r"^[^\s\p{C}]([^\p{C}\p{Zl}\p{Zp}]*[^\s\p{C}])?$")
]
File = Annotated[str, Field(min_length=1, max_length=4096)]
Assistants = (
    Annotated[int, Field(ge=0, le=10)]
    | Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=10)]
)
Cost = Annotated[str, Field(min_length=1, max_length=40)]
STRENGTHS = (0.3, 1.0)  # as in understudy.ladder.structured, which needs torch


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Views(_Section):
    """How training images are varied; nothing unless asked for."""

    crop: Annotated[int, Field(ge=0, le=4096)] = Field(
        0, description="pixels of padding before a random crop"
    )
    flip: bool = Field(False, description="mirror left-right with probability 1/2")
    erase: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="probability of erasing a rectangle")
    fill: Annotated[int, Field(ge=0, le=255)] = Field(0, description="grey level of erased pixels")
    mixup: Annotated[float, Field(ge=0, le=100)] = Field(
        0.0, description="alpha of Beta(alpha, alpha); 0 is off"
    )
    transforms: list[dict[str, Any]] = Field(
        [], description="torchvision v2 transforms, each {name: ..., ...}"
    )
    seed: Seed = Field(0, description="of the views; apart from the seeds of training")
    distinct: PositiveInt | None = Field(
        None,
        description="stages with teachers see so many different views in turn; null: a new one each epoch",
    )
    per_seed: bool = Field(False, description="each seed has views of its own, and shares no signals")


class Data(_Section):
    """Where images come from. Exactly one of name, path and hub."""

    name: Name | None = Field(None, description="a set that ships with a package: digits")
    path: File | None = Field(None, description="an .npz file or a folder of class folders")
    hub: File | None = Field(None, description="a data set of the Hugging Face hub, or a local copy of one")
    validation: Annotated[float, Field(ge=0, lt=1)] = Field(0.1, description="share of the training images")
    split_seed: Seed = Field(0, description="of the splits; does not vary with seeds")
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="of a set without a test split"
    )
    train_images: PositiveInt | None = Field(None, description="take only so many for training")
    test_images: PositiveInt | None = Field(None, description="take only so many for testing")
    size: Size | None = Field(None, description="bring every image to this size in pixels")
    channels: Literal[1, 3] | None = Field(None, description="grey or colour; found out unless said")
    memory: Literal["auto", "memory", "stream"] = Field(
        "auto", description="hold images decoded, or decode for every batch"
    )
    mean: Statistics | None = Field(
        None, description="of each channel, 1.0 = 255; the training split's unless said"
    )
    std: Deviations | None = Field(None, description="likewise")
    columns: dict[Name, Name] | None = Field(None, description="hub: {image: ..., label: ...}")
    views: Views = Field(default_factory=Views)


class Model(_Section):
    """A network and, where it exists already, its weights. A name alone is short for {name: ...}."""

    name: Name | None = Field(
        None, description="plain_cnn-10, resnet-20, wrn-16-2, vgg-8, mobilenet_v2, timm/..., torchvision/..."
    )
    width: Width = Field(1.0, description="factor on the channels of a built-in network")
    strip: Annotated[int, Field(ge=3, le=99)] | None = Field(
        None, description="make every k x k convolution 1 x this; odd"
    )
    pretrained: bool = Field(False, description="begin with the weights that timm or torchvision publish")
    size: Size | None = Field(None, description="its own image size in pixels")
    mean: Statistics | None = Field(None, description="its own normalisation")
    std: Deviations | None = None
    weights: File | None = Field(None, description="a file of weights, taken as they are: nothing is trained")
    start: File | None = Field(None, description="a file of weights to begin training with")
    file: File | None = Field(
        None,
        description="instead of a name, a teacher in a file: .onnx, .pt2 of torch.export, or .npz of its logits",
    )
    training: dict[str, Any] = Field(
        {}, description="what differs from the recipe's training for this network"
    )


class Models(_Section):
    """The networks of a ladder, largest first."""

    teacher: Model | None = None
    assistants: list[Model] = []
    student: Model | None = Field(
        None, description="may be left out with structure: the teacher's network then"
    )


class Stochastic(_Section):
    """Stochastic teaching of the last stage of a dense ladder."""

    mode: Literal["bernoulli_assistants", "bernoulli_all", "exact_k"] = "bernoulli_assistants"
    keep: Annotated[float, Field(gt=0, le=1)] = Field(
        0.75, description="probability that a teacher teaches in a batch"
    )
    drop: Annotated[int, Field(ge=0, le=1000)] = Field(
        1, description="exact_k: teachers left out of each batch"
    )
    rescale: bool = False


class Teaching(_Section):
    """How soft targets are weighed."""

    temperature: Annotated[float, Field(gt=0, le=1e4)] = 4.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="lambda")
    combine: Literal["sum", "mean"] = Field("sum", description="of the terms of several teachers")
    hard_terms: Literal["per_teacher", "once"] = "per_teacher"
    kl_reduction: Literal["batchmean", "mean_over_classes"] = "batchmean"
    teacher_weights: list[Annotated[float, Field(ge=0, le=1e4)]] | None = None


class Signals(_Section):
    """How what teachers say is kept."""

    dtype: Literal["float16", "float32"] = Field("float16", description="of a kept logit")
    top_k: PositiveInt | None = Field(
        None, description="keep only so many logits of a sample, and one number for the rest; null: all"
    )
    max_gb: Annotated[float, Field(ge=0, le=1e6)] | None = Field(
        None, description="that all signals in the store may take; teachers answer live where they do not fit"
    )


class StageEntry(_Section):
    """One stage of the long form."""

    name: StageName
    model: Model
    teachers: list[StageName] = []
    start: StageName | None = Field(None, description="another stage whose weights it begins with")
    teaching: dict[str, Any] = Field({}, description="what differs from the recipe's teaching")
    stochastic: Stochastic | None = None


class BudgetSection(_Section):
    """What the student may cost for one image: a part of the network's own cost, or a number with its unit."""

    multiply_adds: Cost | None = Field(None, description="0.5x, or such as 20MMAC")
    parameters: Cost | None = Field(None, description="0.19x, or such as 300k")


class StructureSection(_Section):
    """Learns how many channels each layer of the student has."""

    budget: BudgetSection
    strengths: Annotated[list[Annotated[float, Field(gt=0, le=1e6)]], Field(min_length=1, max_length=20)] = (
        Field(
            list(STRENGTHS),
            description="of the regulariser, in multiples of a usual one: each is tried, the best on validation taken",
        )
    )
    epochs: PositiveInt | None = Field(None, description="of each search; the recipe's unless said")
    training: dict[str, Any] = Field(
        {},
        description="what differs from the recipe's training in a search; its rate is constant unless said",
    )
    blocks: dict[Name, Annotated[float, Field(ge=0, le=1e6)]] = Field(
        {}, description="weight of the regulariser in a block, such as {stage2: 2.0, stem: 0}"
    )
    schedule: Literal["joint", "sequential"] = Field("joint", description="all blocks at a time, or in turn")
    retrain: Literal["scratch", "finetune"] = Field(
        "scratch", description="what is found begins with new weights, or with those of the search"
    )
    assistants: Assistants = Field(
        0,
        description="how many structures found on the way teach the student; or where they lie, such as [0.5]: "
        "half of the way from the whole network to the student, in ratios",
    )


class QuantiseSection(_Section):
    """One more stage: the student again, trained on while its numbers are rounded to int8."""

    epochs: PositiveInt = Field(5, description="of that training")
    training: dict[str, Any] = Field(
        {},
        description="what differs from the recipe's training; fp32, a hundredth of its lr and clip: 1.0 unless said",
    )


class LadderSection(_Section):
    """A shape by name, or stages one by one."""

    shape: Shape | None = Field(
        None, description="scratch, direct, chain (TAKD), dense (DGKD), paths or pacemaker"
    )
    reading: Literal["ensemble", "hybrid", "strips"] = Field(
        "ensemble", description="of pacemaker: what stands between teacher and student"
    )
    stochastic: Stochastic | None = None
    stages: list[StageEntry] | None = Field(None, description="the long form")
    student: StageName | None = Field(None, description="long form: the stage that is delivered")


class DirectLong(_Section):
    """The control that spends on one student what the ladder spends below its teacher."""

    match: Literal["epochs", "multiply_adds"] = "epochs"


class Recipe(_Section):
    """A whole recipe with every default written out."""

    version: Literal[1] = 1
    data: Data
    ladder: LadderSection = Field(default_factory=lambda: LadderSection(shape="direct"))
    models: Models | None = None
    structure: StructureSection | None = Field(None, description="learn the student's structure")
    quantise: QuantiseSection | None = Field(
        None, description="quantisation-aware distillation of the student"
    )
    teaching: Teaching = Field(default_factory=Teaching)
    training: Training = Field(default_factory=Training)
    signals: Signals = Field(default_factory=Signals)
    controls: list[Control] = Field(description="arms beside the ladder; [scratch, direct] unless said")
    compare: list[Name] | None = Field(
        None,
        description="arms whose difference to direct is the claim, named beforehand; others are corrected",
    )
    direct_long: DirectLong = Field(default_factory=DirectLong)
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000)] = Field(
        [0], description="of the students"
    )
    repeat: Literal["student", "assistants", "ladder"] = "student"
    ladder_seed: Seed = Field(0, description="of the stages that do not vary with seeds")
    compat: Compat | None = Field(None, description="fill in the keys of an official code")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, every default written out; reading them again gives the same recipe."""
        said: dict[str, Any] = json.loads(self.model_dump_json())
        return said

    def as_yaml(self) -> str:
        """``as_dict`` as a file."""
        return written(self.as_dict())
