"""A loss of your own: a way to teach is one file, a pure function and a small class around it.

Here the student's logits are drawn to the teacher's by their squared distance (Ba & Caruana 2014, arXiv:1312.6184,
Eq. 1: regression on logits), with the labels beside it. Prints the table of a run in which soft targets stand beside
it as a second arm, such as

    stage              model                MMAC   n    accuracy, %                to direct
    teacher            plain_cnn-4          1.50   1          96.78
    matched logits *   plain_cnn-2 x0.25   0.014   2   95.28 ± 1.33   +1.11 [-3.12, +5.34] c
    direct             plain_cnn-2 x0.25   0.014   2   94.17 ± 0.86
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

import understudy as us


def logit_distance(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Half the squared distance of the logits, each less its mean over classes, which softmax does not see.

    Args:
        student_logits: ``(batch, classes)``. Receives the gradient.
        teacher_logits: ``(batch, classes)``.

    Returns:
        ``(batch,)``, averaged over classes.
    """
    student = student_logits - student_logits.mean(dim=1, keepdim=True)
    teacher = teacher_logits - teacher_logits.mean(dim=1, keepdim=True)
    return 0.5 * (student - teacher.detach()).square().mean(dim=1)


@dataclass(kw_only=True)
class MatchedLogits(us.Method):
    """(1 - weight) * cross-entropy + weight * :func:`logit_distance` to the first teacher.

    Attributes:
        weight: in [0, 1].
    """

    name = "matched_logits"
    version = (
        1  # raise it when the same settings would give another result: kept ones are then not taken for it
    )

    weight: float = 0.5

    def definition(self, *, teachers: int) -> dict[str, Any]:
        """Everything that decides the result: it becomes part of the key."""
        return {"name": self.name, "version": self.version, "weight": self.weight}

    def needs(self) -> us.Needs:
        return us.Needs(logits=True)

    def loss(self, step: us.Step) -> dict[str, Tensor]:
        logits = step.student(step.batch)
        hard = step.hard_loss(logits, step.batch)
        distance = logit_distance(logits, step.teacher_logits([0], step.batch)[0]).mean()
        return {
            "total": (1 - self.weight) * hard + self.weight * distance,
            "hard": hard,
            "distance": distance,
        }


def main(store: Path = Path("runs/.store"), epochs: int = 10) -> us.RunResult:
    """Teaches the same student in two ways from one teacher."""
    data = us.load(name="digits", train_images=300)
    training = us.Training(epochs=epochs, batch_size=32)
    small = us.Network(name="plain_cnn-2", width=0.25)
    teacher = us.Stage(
        name="teacher",
        role="teacher",
        network=us.Network(name="plain_cnn-4"),
        method=us.Labels(),
        training=training,
    )

    def taught(name: str, method: us.Method) -> us.Stage:
        return us.Stage(name=name, network=small, teachers=("teacher",), method=method, training=training)

    ladder = us.Ladder(
        stages=(teacher, taught("matched logits", MatchedLogits()), taught("direct", us.SoftTargets())),
        delivered=("matched logits",),
    )
    result = us.run(ladder, data, seeds=[0, 1], store=store, compare=["matched logits"])
    print(result)
    return result


if __name__ == "__main__":
    main()
