"""The keys of a recipe, their types and defaults."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from understudy.recipe.reading import written
from understudy.training.settings import Training

Shape = Literal["scratch", "direct", "chain", "dense", "paths", "pacemaker", "peers"]
Control = Literal[
    "scratch",
    "direct",
    "direct_long",
    "chain",
    "dense",
    "uniform",
    "structure_alone",
    "peers_alone",
    "balanced_labels",
    "curriculum_reverse",
    "curriculum_random",
    "hints",
    "label_smoothing",
    "early_teacher",
    "mean_teachers",
    "logit_std",
    "dkd",
]
Compat = Literal["takd", "dgkd", "srm", "pcl", "bkd"]
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
STRENGTHS = (1.0, 2.0)  # as in understudy.ladder.structured, which needs torch


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


class LongTail(_Section):
    """Leaves out training images, so that the classes are rarer and rarer in their order."""

    imbalance: Annotated[float, Field(ge=1, le=1e6)] = Field(
        description="images of the largest class for one of the smallest, such as 100"
    )
    profile: Literal["exp", "step"] = Field(
        "exp",
        description="the same factor from class to class, or the first half of them whole and the second small",
    )


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
    long_tail: LongTail | None = Field(None, description="make the training classes imbalanced")
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


class PeersOf(_Section):
    """Several networks that share their first layers."""

    count: Annotated[int, Field(ge=2, le=32)] = Field(3, description="how many peers")
    split: Name | None = Field(
        None, description="the first layer or stage that each has for itself; the last stage unless said"
    )
    deliver: Literal["first", "ensemble"] = Field(
        "first", description="of a student: the first peer alone, or all of them with their ensemble head"
    )


class Model(_Section):
    """A network and, where it exists already, its weights. A name alone is short for {name: ...}."""

    name: Name | None = Field(
        None,
        description="plain_cnn-10, resnet-20, wrn-16-2, vgg-8, mobilenet_v2, allcnn, timm/..., torchvision/...",
    )
    width: Width = Field(1.0, description="factor on the channels of a built-in network")
    strip: Annotated[int, Field(ge=3, le=99)] | None = Field(
        None, description="make every k x k convolution 1 x this; odd"
    )
    peers: PeersOf | None = Field(
        None,
        description="so many such networks on shared first layers, which teach each other; a number or keys",
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


class Balance(_Section):
    """Weighs what teachers say towards rare classes (BKD)."""

    beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.9999, description="of effective numbers; 0: all classes alike"
    )
    defer: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0, description="share of the epochs, from the beginning, in which all classes are alike"
    )
    form: Literal["renormalised", "unnormalised"] = Field(
        "renormalised",
        description="weighed answers made a distribution again, as published, or left as they are",
    )
    control_labels: Literal["plain", "balanced"] = Field(
        "plain",
        description="of controls that teachers teach: balanced weighs their labels by class, as the official code does "
        "where it is asked for plain distillation",
    )


class CurriculumSection(_Section):
    """In which order samples come: easy ones first, as the student itself finds them early on."""

    score: Literal["gap", "loss", "confidence", "teacher", "random"] = Field(
        "gap", description="what makes a sample difficult"
    )
    direction: Literal["easy_first", "hard_first"] = Field(
        "easy_first", description="hard_first is the control that turns it round"
    )
    pacing: Literal["exponential", "linear", "single_step", "sequence"] = Field(
        "exponential", description="how the part of the samples that is available grows"
    )
    start: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="the part that is available first")
    growth: Annotated[float, Field(gt=1, le=1e6)] = Field(
        1.9,
        description="so many times more at each step; linear and single_step have everything when exponential has",
    )
    step: Annotated[float, Field(gt=0, le=1)] = Field(0.05, description="in shares of a phase")
    boundaries: Annotated[list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1, max_length=100)] = (
        Field([0.1, 0.3, 0.6], description="where phases begin, each with a new order; shares of the epochs")
    )
    uniform: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.2, description="share of the epochs, at the end, in which samples come as usual"
    )


class SparseCodesSection(_Section):
    """The student begins by telling sparse codes of its teacher's features (SRM)."""

    layers: dict[Name, Name] | None = Field(
        None,
        description="{student's layer: teacher's layer}; unless said, those of the paper for its networks, and for others "
        "the last of each feature-map size that both have",
    )
    atoms: Annotated[float, Field(gt=0, le=100)] = Field(
        2.0, description="of a dictionary, in multiples of the teacher's channels"
    )
    sparsity: Annotated[float, Field(gt=0, le=1)] = Field(0.02, description="share of the atoms in a code")
    labels: Literal["both", "pixel", "image"] = Field("both", description="what the student learns to tell")
    local_logits: Literal["sigmoid", "pre_sigmoid"] = Field(
        "sigmoid", description="what the pixels' softmax is of; the first as in the official code"
    )
    teacher_mode: Literal["eval", "train"] = Field(
        "eval",
        description="of the teacher while dictionaries are learnt; train as in the official code: its statistics drift",
    )
    dictionary_layers: dict[Name, Name] = Field(
        {},
        description="{teacher's layer that is matched: its layer on which the dictionary is learnt}, where they differ; the "
        "official code has {maxpool: layer1} on ImageNet",
    )
    epochs: PositiveInt | None = Field(None, description="of the student on codes; the recipe's unless said")
    training: dict[str, Any] = Field({}, description="what differs from the recipe's training there")
    dictionary_epochs: PositiveInt | None = Field(
        None, description="of the dictionaries; as epochs unless said"
    )
    dictionary_training: dict[str, Any] = Field(
        {}, description="what differs for the dictionaries; adamw, lr 0.001 and no weight decay unless said"
    )


class PeersTeaching(_Section):
    """How peers teach each other (PCL)."""

    temperature: Annotated[float, Field(gt=0, le=1e4)] = Field(
        3.0, description="of what peers say to each other; that of teachers is teaching.temperature"
    )
    weight: Annotated[float, Field(ge=0, le=1e4)] = Field(1.0, description="of what peers say to each other")
    ramp: Annotated[float, Field(ge=0, le=1)] = Field(
        0.267, description="share of the epochs in which that weight rises; 80 of 300"
    )
    ramp_divisor: Literal["length", "weight"] = Field(
        "length",
        description="what the epoch is divided by on the way; weight is the slip of the public re-implementation",
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="of the moving average that is delivered"
    )
    ema_buffers: bool = Field(
        False,
        description="average the student's normalisation statistics, in place of the mean network's own",
    )


class Teaching(_Section):
    """How soft targets are weighed, and what goes with them."""

    temperature: Annotated[float, Field(gt=0, le=1e4)] = 4.0
    soft_weight: Annotated[float, Field(ge=0, le=1)] = Field(0.5, description="lambda")
    combine: Literal["sum", "mean"] = Field("mean", description="of the terms of several teachers")
    hard_terms: Literal["per_teacher", "once"] = "per_teacher"
    kl_reduction: Literal["batchmean", "mean_over_classes"] = "batchmean"
    teacher_weights: list[Annotated[float, Field(ge=0, le=1e4)]] | None = None
    balance: Balance | None = Field(None, description="for long-tailed data")
    curriculum: CurriculumSection | None = Field(None, description="the order of the samples")
    sparse_codes: SparseCodesSection | None = Field(None, description="how the student begins")
    peers: PeersTeaching = Field(default_factory=PeersTeaching)


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
        None, description="scratch, direct, chain (TAKD), dense (DGKD), paths, pacemaker or peers (PCL)"
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
    control_training: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="what differs where the student of a control is trained: {scratch: {lr: 0.1}}",
    )
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
    compat: Compat | None = Field(None, description="fill in the keys of a published code")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, every default written out; reading them again gives the same recipe."""
        said: dict[str, Any] = json.loads(self.model_dump_json())
        return said

    def as_yaml(self) -> str:
        """``as_dict`` as a file."""
        return written(self.as_dict())
