"""All figures by name. Each is a function of a ``Bench``; the first line of its docstring says what it is."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.figures import gpu, growth, ladders, peak, plan, steps
from benchmarks.results import Figure

FIGURES: dict[str, Callable[[Bench], Figure]] = {
    figure.__name__: figure
    for figure in (
        steps.kept_step,
        steps.kept_step_official,
        steps.dense_step,
        steps.dense_step_official,
        steps.kept_over_plain,
        steps.live_step,
        steps.kept_step_float32,
        steps.trainer_over_bare,
        steps.augmentation,
        steps.memory_steps,
        peak.train_resnet_20,
        peak.train_resnet_110,
        peak.train_plain_cnn_10,
        peak.train_wrn_40_2,
        peak.answers_resnet_110,
        ladders.ladder_resnet_chain,
        ladders.ladder_resnet_dense,
        ladders.ladder_plain_dense,
        ladders.everyday_seed,
        ladders.everyday_temperature,
        ladders.everyday_shape,
        ladders.paths,
        ladders.memory_ladder,
        plan.plan_time,
        plan.plan_disk,
        plan.plan_memory,
        growth.growth_teachers,
        growth.growth_samples,
        growth.growth_classes,
        growth.growth_seeds,
        gpu.gpu_kept_step,
        gpu.gpu_dense_step,
        gpu.gpu_plain_step,
    )
}


def about(name: str) -> str:
    """What a figure is, in a line."""
    return (FIGURES[name].__doc__ or "").partition("\n")[0]
