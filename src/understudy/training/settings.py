"""The settings of one training, checked; no torch needed to hold them."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from understudy.errors import BadInput

Device = Literal["auto", "cpu", "cuda"]

OPTIMIZERS = ("sgd", "adamw")
SCHEDULES = ("constant", "step", "cosine", "one_cycle")
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda")
DECAYS = ("all", "weights")
SAMPLINGS = ("instance", "balanced", "square_root")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a stage is trained.

    Attributes:
        epochs: passes over the training set.
        batch_size: images in a batch, 2 or more.
        sampling: how often an epoch shows a class: ``instance``: every image once; ``balanced``: every class equally
            often; ``square_root``: in proportion to the root of its number of images.
        optimizer: ``sgd`` or ``adamw``.
        lr: peak learning rate.
        momentum: of SGD; for AdamW it is beta_1.
        nesterov: Nesterov's form of SGD's momentum.
        weight_decay: L2 penalty of SGD, decoupled decay of AdamW.
        decay: ``all`` parameters (as the official codes of TAKD and DGKD do) or ``weights``: only tensors of two or
            more dimensions, so that biases and normalisation scales are left alone.
        schedule: ``constant``; ``step``: times ``gamma`` at each of ``milestones``; ``cosine`` to 0; ``one_cycle``:
            linear rise over the first 30 % of the steps from lr/25, then cosine to lr/10000.
        warmup: epochs of linear rise from 0 before the schedule; not with ``one_cycle``, which has its own.
        milestones: for ``step``, fractions of all steps in (0, 1), rising.
        gamma: for ``step``.
        clip: largest L2 norm of the gradient over everything trained; None: no clipping.
        label_smoothing: of the hard term, in [0, 1).
        ema: decay in (0, 1) of an exponential moving average of the weights, which is then what is evaluated, kept
            and taught from; None: none.
        accumulate: batches whose gradients are averaged into one step of the optimiser.
        precision: ``fp32``, ``bf16`` (autocast; weights stay float32) or ``auto``: bf16 where the processor is faster
            with it, else fp32.
        device: ``cpu``, ``cuda`` or ``auto``: cuda where there is one.
        threads: of torch inside a stage on the CPU. Sums are split by threads, so this decides bits.
        checkpoint_minutes: time between checkpoints inside an epoch; there is one at each epoch's end anyway.
        workers: loader processes for streamed data; in-memory data needs none.
    """

    epochs: int = 30
    batch_size: int = 128
    sampling: Literal["instance", "balanced", "square_root"] = "instance"
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.05
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    decay: Literal["all", "weights"] = "all"
    schedule: Literal["constant", "step", "cosine", "one_cycle"] = "one_cycle"
    warmup: float = 0.0
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    clip: float | None = None
    label_smoothing: float = 0.0
    ema: float | None = None
    accumulate: int = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    device: Device = "auto"
    threads: int = 1
    checkpoint_minutes: float = 3.0
    workers: int = 2

    def __post_init__(self) -> None:
        for name, least, most in (
            ("epochs", 1, 100_000),
            ("batch_size", 2, 1_000_000),  # one image alone has no batch statistics
            ("accumulate", 1, 100_000),
            ("threads", 1, 1024),
            ("workers", 0, 256),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise BadInput(f"training.{name} is a whole number from {least} to {most}; got {value!r}.")
        for name, low, high, low_ok, high_ok in (
            ("lr", 0, 1e4, False, True),
            ("momentum", 0, 1, True, False),
            ("weight_decay", 0, 1e3, True, True),
            ("warmup", 0, self.epochs, True, True),
            ("gamma", 0, 1, False, True),
            ("clip", 0, 1e9, False, True),
            ("label_smoothing", 0, 1, True, False),
            ("ema", 0, 1, False, False),
            ("checkpoint_minutes", 0, 1e6, False, True),
        ):
            value = getattr(self, name)
            if value is None and name in ("clip", "ema"):
                continue
            good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            if good:
                good = (value >= low if low_ok else value > low) and (
                    value <= high if high_ok else value < high
                )
            if not good:
                interval = f"{'[' if low_ok else '('}{low:g}, {high:g}{']' if high_ok else ')'}"
                raise BadInput(f"training.{name} is a number in {interval}; got {value!r}.")
        for name, possible in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
            ("device", DEVICES),
            ("decay", DECAYS),
            ("sampling", SAMPLINGS),
        ):
            if getattr(self, name) not in possible:
                raise BadInput(f"training.{name} {getattr(self, name)!r} is none of {', '.join(possible)}.")
        rising = all(a < b for a, b in zip(self.milestones, self.milestones[1:], strict=False))
        if not rising or not all(0 < m < 1 for m in self.milestones):
            raise BadInput(
                f"training.milestones are rising fractions of the training in (0, 1), such as [0.5, 0.75]; "
                f"got {list(self.milestones)}."
            )
        if self.schedule == "one_cycle" and self.warmup:
            raise BadInput(
                "training.warmup goes with another schedule: one_cycle has its own rise. Set warmup: 0."
            )
        if self.nesterov and self.optimizer == "sgd" and self.momentum == 0:
            raise BadInput("training.nesterov needs a momentum; set nesterov: false or momentum: 0.9.")

    def definition(self) -> dict[str, Any]:
        """What of it decides the result: all but how often checkpoints are written and how data is loaded.

        Settings that the chosen optimiser or schedule does not look at are left out, so that they change no key.
        ``precision`` and ``device`` must be resolved (not ``auto``) by the caller, see
        ``understudy.training.precision.resolved``.
        """
        said = asdict(self)
        for name in ("checkpoint_minutes", "workers"):
            del said[name]
        if self.optimizer != "sgd":
            del said["nesterov"]
        if self.schedule != "step":
            del said["milestones"], said["gamma"]
        if self.schedule == "one_cycle":
            del said["warmup"]
        if not self.weight_decay:
            del said["decay"]
        # left out at their defaults, so that the knob could be added without new keys
        for name, default in (
            ("clip", None),
            ("ema", None),
            ("accumulate", 1),
            ("decay", "all"),
            ("sampling", "instance"),
        ):
            if name in said and said[name] == default:
                del said[name]
        del said["label_smoothing"]  # the task's definition holds it
        if self.device == "cuda":
            del said["threads"]
        return said
