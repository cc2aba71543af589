"""Plants faults in the sources, one at a time, and shows that the tests notice each of them.

A fault is one small change to one file: a sign, a factor, a missing ``no_grad``, a key that forgets a field. It is planted
in a copy of the tree in a temporary folder, and the test files named with it are run there. A fault that they do not
notice *survives*: a test is missing.

    python tools/mutants.py                 # all of them
    python tools/mutants.py schedules key   # those whose file or description holds one of these words
    python tools/mutants.py --jobs 2        # so many side by side

The tests must pass without any fault, which is looked at first. Ends with 1 where a fault survives, or where what it
should change is not in its file exactly once: then the source has moved on, and the fault has to be written anew.
"""

from __future__ import annotations

import argparse
import os
import platform
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("src", "tests", "pyproject.toml")
LONGEST = 300.0  # seconds: a test run that takes longer hangs, which is noticed, too


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        what: in a few words.
        file: below ``src/understudy``.
        old: what stands there, exactly once.
        new: what is put in its place.
        tests: files below ``tests`` that should notice.
    """

    what: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def in_file(file: str, *tests: str, faults: dict[str, tuple[str, str]]) -> Iterator[Mutant]:
    for what, (old, new) in faults.items():
        yield Mutant(what, file, old, new, tests)


MUTANTS: tuple[Mutant, ...] = (
    # ------------------------------------------------------------------------------------------------- losses
    *in_file(
        "losses/soft_targets.py",
        "losses/test_soft_targets.py",
        faults={
            "T instead of T squared": ("(temperature**2 * weights", "(temperature * weights"),
            "divergence of another than the teacher": (".mul_(targets).sum(-1)", ".mul_(now.exp()).sum(-1)"),
            "gradient of the wrong sign": ("(now - student)", "(student - now)"),
            "KL divided by the number of classes": (".mul_(targets).sum(-1)", ".mul_(targets).mean(-1)"),
            "student is not softened": (
                "student_logits.to(number_format) / temperature",
                "student_logits.to(number_format)",
            ),
            "weights of teachers are ignored": (
                "(temperature**2 * weights.to(number_format)).view(-1, 1, 1)",
                "temperature**2",
            ),
            "computed in half precision": (
                "torch.promote_types(student_logits.dtype, torch.float32)",
                "student_logits.dtype",
            ),
        },
    ),
    *in_file(
        "losses/hard_labels.py",
        "losses/test_hard_labels.py",
        faults={
            "mixup: both labels weigh the share": (
                "(1 - share) * one(partner_labels)",
                "share * one(partner_labels)",
            ),
            "mixup: one known label is enough": (
                "(labels != UNLABELLED) & (partner",
                "(labels != UNLABELLED) | (partner",
            ),
            "smoothing is ignored": (
                "label_smoothing=label_smoothing,\n            ignore",
                "label_smoothing=0.0,\n            ignore",
            ),
        },
    ),
    *in_file(
        "losses/decoupled.py",
        "losses/test_decoupled.py",
        faults={
            "alpha and beta change places": (
                "target_weight * target + others_weight * others",
                "others_weight * target + target_weight * others",
            ),
            "the teacher gets a gradient": ("teacher_logits.detach().float()", "teacher_logits.float()"),
            "KL among the others the wrong way round": (
                "F.kl_div(student_others, teacher_others,",
                "F.kl_div(teacher_others, student_others,",
            ),
            "T instead of T squared": ("loss = temperature**2 *", "loss = temperature *"),
            "the target stays among the others": (
                "others.logsumexp(1, keepdim=True)",
                "logits.logsumexp(1, keepdim=True)",
            ),
            "unlabelled examples teach": (
                "torch.where(labelled, loss, torch.zeros_like(loss))",
                "loss",
            ),
        },
    ),
    *in_file(
        "losses/standardised.py",
        "losses/test_standardised.py",
        faults={
            "the mean stays": ("(rows - rows.mean(-1, keepdim=True)) /", "rows /"),
            "KL the wrong way round": (
                "standardised(student_logits), standardised(teacher_logits), temperature",
                "standardised(teacher_logits), standardised(student_logits), temperature",
            ),
            "variance instead of deviation": ("rows.std(-1", "rows.var(-1"),
        },
    ),
    # ------------------------------------------------------------------------------------- four more ways to teach
    *in_file(
        "losses/balanced.py",
        "losses/test_balanced.py",
        "teaching/test_balanced.py",
        faults={
            "weights are not scaled to the mean 1": ("return weights / weights.mean()", "return weights"),
            "weights fall on logits without T": (
                "shift = temperature * weights.to(torch.float64).log()",
                "shift = weights.to(torch.float64).log()",
            ),
            "frequent classes gain": ("weights = 1 / effective_numbers", "weights = effective_numbers"),
            "a class without images divides by zero": (".clamp(min=1)\n    base", "\n    base"),
            "the mean of labels counts those without one": ("labelled.sum().clamp(min=1)", "len(labels)"),
        },
    ),
    *in_file(
        "teaching/balanced.py",
        "teaching/test_balanced.py",
        faults={
            "deferred one epoch longer": ("if epoch < self.first_epoch", "if epoch <= self.first_epoch"),
            "the un-normalised form is the other one": ('if self.form == "unnormalised":', "if False:"),
            "the key forgets when it begins": (', "defer": self.defer}', "}"),
            "images without a label count for a class": ("labels[labels >= 0]", "labels.clip(min=0)"),
        },
    ),
    *in_file(
        "losses/peers.py",
        "losses/test_peers.py",
        "teaching/test_peers.py",
        faults={
            "a peer learns from its own mean": ("for r in range(1, peers)", "for r in range(peers - 1)"),
            "the mean over all peers": ("1 / (peers - 1)", "1 / peers"),
            "the ramp divides by its weight": (
                "weight if by_weight else length)",
                "length if by_weight else weight)",
            ),
            "the ramp begins at its end": ("else epoch >= length)", "else epoch <= length)"),
            "the mean of the first step is not the network": ("min(1 - 1 / step, most)", "most"),
        },
    ),
    *in_file(
        "teaching/peers.py",
        "teaching/test_peers.py",
        faults={
            "all peers see one view": (
                "zip(\n            *(step.run(partial(model.peer, j), batch)",
                "zip(\n            *(step.run(partial(model.peer, j), step.batches[0])",
            ),
            "the mean stands in place of the student's share": (
                "average.lerp_(now, 1 - phi)",
                "average.lerp_(now, phi)",
            ),
            "a resumed training counts steps anew": ('self.steps = state["steps"]', "self.steps = 0"),
            "the student is delivered": (
                "        return self.mean\n\n    def state_dict",
                "        return model\n\n    def state_dict",
            ),
            "the key forgets the ramp": ('"ramp": self.ramp}', "}"),
        },
    ),
    *in_file(
        "losses/sparse_codes.py",
        "losses/test_sparse_codes.py",
        "teaching/test_sparse_codes.py",
        faults={
            "one atom more": ("similarities.topk(k, dim=1", "similarities.topk(min(k + 1, atoms), dim=1"),
            "truncated before the product": (
                "int(channels * (sparsity * atoms))",
                "int(int(channels * sparsity) * atoms)",
            ),
            "the teacher's features take a gradient": ("as_maps(features.detach())", "as_maps(features)"),
            "the intercept is left out": (" + self.intercept.to(number_format)", ""),
            "the label is the farthest atom": ("codes.argmax(dim=1)", "codes.argmin(dim=1)"),
            "the softmax is of what the sigmoid is taken of": (
                'if logits == "sigmoid":',
                'if logits != "sigmoid":',
            ),
            "images are labelled by their strongest code": ("codes.mean((2, 3))", "codes.amax((2, 3))"),
        },
    ),
    *in_file(
        "teaching/curriculum.py",
        "teaching/test_curriculum.py",
        faults={
            "hard first is easy first": ("-scores if turned else scores", "scores"),
            "the end is not as usual": ("if phase < 0 or epoch >= end:", "if phase < 0:"),
            "an order is made anew after a crash": (
                "if epoch not in begins or len(self.orders) > begins.index(epoch):",
                "if epoch not in begins:",
            ),
            "a resumed training forgets its orders": (
                'self.orders, self.scores = list(state["orders"]), ',
                "self.orders, self.scores = [], ",
            ),
            "the key forgets which come first": (
                '{"direction": self.direction} if self.score != "random" else {}',
                "{}",
            ),
            "only the first teacher counts": ("torch.stack(gaps).mean(0)", "gaps[0]"),
        },
    ),
    *in_file(
        "data/ordering.py",
        "data/test_ordering.py",
        faults={
            "classes come one after the other": ("np.lexsort((turn, place))", "np.lexsort((place, turn))"),
            "a step of the pacing later": ("growth ** math.floor(done)", "growth ** math.ceil(done)"),
            "what becomes available waits for the next pass": (
                "left[count : count + now - length] = np.arange(length, now)\n        count += now - length",
                "pass",
            ),
        },
    ),
    *in_file(
        "data/long_tail.py",
        "data/test_long_tail.py",
        faults={
            "one class too far": ("label / max(1, classes - 1)", "label / classes"),
            "rounded instead of cut": ("int(largest * share + 1e-9)", "round(largest * share)"),
            "the first images stay": (
                'shuffled_rows(labels, label, seed=seed, purpose="long tail")',
                "np.flatnonzero(labels == label)",
            ),
            "a hundred images are many": ('"many" if count > 100', '"many" if count >= 100'),
        },
    ),
    *in_file(
        "data/sampling.py",
        "data/test_sampling.py",
        faults={
            "the root is left out": ("np.sqrt(counts[labelled])", "counts[labelled]"),
            "every epoch begins with the same images": ("start = epoch * share", "start = 0"),
        },
    ),
    # -------------------------------------------------------------------------------------- structures and files
    *in_file(
        "losses/resource.py",
        "losses/test_resource.py",
        faults={
            "counts take a gradient": (
                "(into.detach() > threshold).sum()",
                "torch.sigmoid(1e3 * (into - threshold)).sum()",
            ),
            "inputs and outputs are mixed up": (
                "alive_into * out.sum() + alive_out * into.sum()",
                "alive_out * out.sum() + alive_into * into.sum()",
            ),
            "what reads a channel is free": (
                "return prices.index_add(0, charges.into,",
                "return prices if True else prices.index_add(0, charges.into,",
            ),
            "the image costs nothing": (
                "(into.detach() > threshold).sum() + fixed_into",
                "(into.detach() > threshold).sum()",
            ),
        },
    ),
    *in_file(
        "teaching/structure_search.py",
        "teaching/test_structure_search.py",
        faults={
            "scales decay": (
                "[*self.method.no_decay(model), *prepared.magnitudes.norm_scales(prepared.free)]",
                "[*self.method.no_decay(model)]",
            ),
            "the key forgets the blocks": ('**({"blocks": blocks} if blocks else {}),', ""),
            "one price for all time": (
                "phase.prices(magnitudes.detach() > self.threshold)",
                "phase.prices(magnitudes.detach() > -1)",
            ),
            "frozen blocks are penalised": ("return prices.sum(0) * self._free", "return prices.sum(0)"),
        },
    ),
    *in_file(
        "structure/choosing.py",
        "structure/test_choosing.py",
        faults={
            "strong channels go first": (
                "np.lexsort((-places, magnitudes))",
                "np.lexsort((-places, -magnitudes))",
            ),
            "nothing comes back": (
                "        strongest_first = sorted(",
                "        return\n        strongest_first = sorted(",
            ),
            "what fits by one resource comes back": (
                "            if not limits.hold(self.ledger.cost):\n                self.ledger.remove(channel)",
                "",
            ),
            "frozen channels go": ("if not frozen[channel]])", "])"),
        },
    ),
    *in_file(
        "structure/budget.py",
        "structure/test_budget.py",
        faults={
            "rounded up": ("math.floor(asked * whole * (1 + 1e-12))", "math.ceil(asked * whole)"),
            "more than there is": ("if limit > whole:", "if False:"),
        },
    ),
    *in_file(
        "deploy/parity.py",
        "deploy/test_parity.py",
        faults={
            "every difference is a tie": ("ties = other & near & finite", "ties = other & finite"),
            "NaN is an answer": (
                "torch.where(finite, file.nan_to_num().argmax(-1), -1)",
                "file.nan_to_num().argmax(-1)",
            ),
            "none may differ": (
                "allowed=max(1, int(share * len(labels)))",
                "allowed=int(share * len(labels))",
            ),
        },
    ),
    # ------------------------------------------------------------------------------------------------ training
    *in_file(
        "training/tally.py",
        "training/test_loop.py",
        "training/test_gpu.py",
        faults={
            "the last batch is looked at only": (
                "for batch, parts in since:",
                "for batch, parts in since[-1:]:",
            ),
            "a checkpoint's sums are forgotten": ("(), known.get(name, 0.0), dtype", "(), 0.0, dtype"),
            "batches weigh alike": (
                "known.get(name, 0.0) + float(value) * count",
                "known.get(name, 0.0) + float(value)",
            ),
        },
    ),
    *in_file(
        "training/lesson.py",
        "training/test_loop.py",
        "training/test_gpu.py",
        faults={
            "a part of a step weighs as a whole one": (
                '(parts["total"] * share).backward()',
                'parts["total"].backward()',
            ),
            "gradients stay": ("self.optimizer.zero_grad(set_to_none=True)", "pass"),
            "the moving average begins at zero": ("average.copy_(now)", "average.copy_(0 * now)"),
        },
    ),
    # ----------------------------------------------------------------------------------------------- teaching
    *in_file(
        "teaching/soft_targets.py",
        "teaching/test_soft_targets.py",
        faults={
            "lambda on the hard term": (
                "hard_factor = (1 - self.soft_weight) * (",
                "hard_factor = self.soft_weight * (",
            ),
            "a sum is divided, a mean is not": (
                'self.soft_weight / (n if self.combine == "mean" else 1)',
                'self.soft_weight / (n if self.combine == "sum" else 1)',
            ),
            "rescaled the wrong way": (
                "soft_factor *= n / len(teaching)",
                "soft_factor *= len(teaching) / n",
            ),
            "the last teacher is the one that stays": ("kept[0] = True", "kept[-1] = True"),
            "kept with the probability of being dropped": (
                "stream.random(teachers) < self.keep",
                "stream.random(teachers) >= self.keep",
            ),
            "the same teachers in every step": (
                'numpy_stream(seed, "stochastic teaching", step)',
                'numpy_stream(seed, "stochastic teaching", 0)',
            ),
            "divided by the batch, not by the classes": (
                "soft = soft / output.shape[-1]",
                "soft = soft / output.shape[0]",
            ),
            "asks all teachers, whoever teaches": (
                "step.teacher_logits(teaching, step.batch),",
                "step.teacher_logits(list(range(n)), step.batch)[: len(teaching)],",
            ),
        },
    ),
    *in_file(
        "teaching/soft_targets.py",
        "ladder/test_graph.py",
        faults={
            "key forgets kl_reduction": ('            "kl_reduction": self.kl_reduction,\n', ""),
            "key forgets the weights of teachers": (
                '**({"teacher_weights": list(weights)} if weights else {}),',
                "",
            ),
            "key forgets who is dropped": (
                '**({"stochastic": stochastic.definition()} if stochastic else {}),',
                "",
            ),
        },
    ),
    *in_file(
        "teaching/decoupled.py",
        "teaching/test_decoupled.py",
        faults={
            "ramp begins at zero": ("(step.epoch + 1) / self.warmup", "step.epoch / self.warmup"),
            "key forgets beta": ('            "others_weight": self.others_weight,\n', ""),
        },
    ),
    *in_file(
        "teaching/standardised.py",
        "teaching/test_standardised.py",
        faults={
            "weights change places": (
                "self.hard_weight * hard + self.soft_weight * soft",
                "self.soft_weight * hard + self.hard_weight * soft",
            ),
        },
    ),
    # ------------------------------------------------------------------------------------------------- ladder
    *in_file(
        "ladder/graph.py",
        "ladder/test_graph.py",
        faults={
            "key forgets the seed": ('        "seed": seed,\n    }', '        "seed": 0,\n    }'),
            "key forgets the data": (
                '"data": dataset.fingerprint,\n        "views"',
                '"data": dataset.name,\n        "views"',
            ),
            "key of a given stage forgets the data": (
                '"data": dataset.fingerprint, "weights"',
                '"data": "", "weights"',
            ),
            "key forgets the order of teachers": (
                '"teachers": list(teachers)',
                '"teachers": sorted(teachers)',
            ),
            "key forgets what it began with": ('"start": began', '"start": None'),
            "key forgets the settings of the method": (
                '"method": stage.method.definition(teachers=len(stage.teachers))',
                '"method": stage.method.name',
            ),
            "key forgets label smoothing": (
                "Classification(label_smoothing=stage.training.label_smoothing).definition()",
                "Classification().definition()",
            ),
            "key forgets how teachers are heard": ("        **heard,\n", ""),
            "untaught stages see few views too": ("taught=bool(teachers)", "taught=True"),
            "key forgets the training": (
                '"training": stage.training.definition(),',
                '"training": stage.training.epochs,',
            ),
            "weights are known by the name of their file": (
                'once(("file", str(stage.weights)), lambda: _hash_of_file(stage.weights))',
                "str(stage.weights)",
            ),
            "assistants do not vary where they should": (
                '"assistants": ("student", "start", "assistant", "preparation"),',
                '"assistants": ("student", "start"),',
            ),
            "two factories of one name are one": (
                '("network", stage.network, id(stage.network.factory)), lambda',
                '("network", stage.network.name), lambda',
            ),
        },
    ),
    # -------------------------------------------------------------------------------------------------- store
    *in_file(
        "store/keys.py",
        "store/test_keys.py",
        faults={
            "the order of names decides": (
                "for name in sorted(value)}",
                "for name in value}",
            ),
            "4.0 is not 4": (
                "int(value) if value.is_integer() and abs(value) < 2**53 else value",
                "value",
            ),
            "tensors of another type have one hash": (
                "[name, str(tensor.dtype), list(tensor.shape)]",
                "[name, list(tensor.shape)]",
            ),
            "tensors of another shape have one hash": (
                "[name, str(tensor.dtype), list(tensor.shape)]",
                "[name, str(tensor.dtype)]",
            ),
        },
    ),
    *in_file(
        "store/results.py",
        "store/test_results.py",
        faults={
            "checksums are not looked at": (
                'if files.sha256_of_bytes(content) != result.record["files"][name]["sha256"]:',
                "if False:",
            ),
            "a changed record is believed": (
                'and record.get("checksum") == sealed(record)["checksum"]',
                "",
            ),
            "a newer format is read": (
                'if version != VERSION:\n            raise BadInput(f"{path} has',
                'if version < VERSION:\n            raise BadInput(f"{path} has',
            ),
            "two processes may hold one lock": ("            yield False\n", "            yield True\n"),
            "leases of the living are not seen": (
                'held.update(json.loads(paper.read_text("utf-8")))',
                "pass",
            ),
        },
    ),
    *in_file(
        "store/files.py",
        "store/test_files.py",
        faults={
            "a reader sees half a file": ("part.replace(path)", "path.write_bytes(content[:1])"),
            "parts are left behind": ("part.unlink(missing_ok=True)", "pass"),
        },
    ),
    *in_file(
        "store/housekeeping.py",
        "store/test_housekeeping.py",
        faults={
            "what is young goes": (
                "now - used > older_than_days * 86400",
                "now - used < older_than_days * 86400",
            ),
            "what a run has begun to need goes": (
                "if not mine or key in store.leased() or last_used(",
                "if not mine or last_used(",
            ),
            "what was used meanwhile goes": (
                "key in store.leased() or last_used(store, key) != used:",
                "key in store.leased():",
            ),
            "a dry run removes": (
                "        if not dry_run:\n            # Renamed",
                "        if True:\n            # Renamed",
            ),
            "the newest go first": ("in sorted(stages):", "in sorted(stages, reverse=True):"),
        },
    ),
    # ----------------------------------------------------------------------------------------------- training
    *in_file(
        "training/schedules.py",
        "training/test_schedules.py",
        faults={
            "milestones one step late": ("step >= round(fraction * steps)", "step > round(fraction * steps)"),
            "warm-up begins at zero": ("(step + 1) / warmup_steps", "step / warmup_steps"),
            "cosine forgets the warm-up": ("max(1, steps - warmup_steps)))", "max(1, steps)))"),
            "cosine rises": ("return 0.5 * (1 + math.cos(", "return 0.5 * (1 - math.cos("),
            "one_cycle ends one step too late": ("max(1.0, steps - 1 - peak)", "max(1.0, steps - peak)"),
            "one_cycle begins at the peak": ("1 / START + (1 - 1 / START) * step / peak", "1.0"),
        },
    ),
    *in_file(
        "data/views.py",
        "ladder/test_graph.py",
        "data/test_views.py",
        faults={
            "key forgets the seed of views": (
                '"policy": self.policy.definition(), "seed": self.seed,',
                '"policy": self.policy.definition(), "seed": 0,',
            ),
            "key forgets the policy of views": (
                'said = {"policy": self.policy.definition(),',
                'said = {"policy": bool(self.policy.definition()),',
            ),
            "few distinct views are all of them": ("epoch % self.distinct", "epoch"),
            "seeds with views of their own share them": (
                'stream_seed(self.seed, "views", seed) if self.per_seed',
                'stream_seed(self.seed, "views", 0) if self.per_seed',
            ),
        },
    ),
    *in_file(
        "training/teachers.py",
        "training/test_teachers.py",
        "training/test_speaking.py",
        faults={
            "all teachers share the first one's preprocessing": (
                "if teacher.preprocessing not in prepared:",
                "prepared = {teacher.preprocessing: next(iter(prepared.values()))} if prepared else {}\n"
                "            if not prepared:",
            ),
            "small batches are not filled up": ("_ROWS_A_THREAD = 16", "_ROWS_A_THREAD = 1"),
            "threads do not count in filling up": (
                "_ROWS_A_THREAD * (self.training.threads if",
                "_ROWS_A_THREAD * (1 if",
            ),
            "live teachers are not heard as kept ones": (
                "kept[position] = self._heard(answer)",
                'kept[position] = {"logits": answer - answer.mean(1, keepdim=True)}',
            ),
            "what a file said is not heard as others are": (
                "signals.encode(teacher.answers)",
                '{"logits": teacher.answers}',
            ),
            "answers come in the order in which they were found": (
                "torch.stack([self._decoded(kept[position]) for position in which])",
                "torch.stack([self._decoded(kept[position]) for position in kept])",
            ),
        },
    ),
    *in_file(
        "training/speaking.py",
        "training/test_speaking.py",
        faults={
            "answers of the last view go with this one": (
                "if batch.view is not self.view and batch.view != self.view:",
                "if self.view is None:",
            ),
            "a view that is none of this stage's is looked up": (
                "if batch.view not in self.views:",
                "if False:",
            ),
            "rows in the order of the batch": (
                "{name: rows_of(value, batch) for name, value in parts.items()}",
                "{name: value[: len(batch.labels)] for name, value in parts.items()}",
            ),
            "blocks begin one row late": ("(index[here] - rows.start,", "(index[here] - rows.start - 1,"),
            "a full disk is written to again": ("self.given_up = True", "self.given_up = False"),
            "no bound on what is kept": ("bound * 1e9 -", "bound * 1e18 -"),
            "the last of the disk is taken": ("if size <= min(allowed, free):", "if size <= allowed:"),
            "several teachers share one room": ("allowed, free = allowed - size, free - size", "pass"),
            "a place that refuses ends the run": (
                "            except CannotWrite as error:\n                self._give",
                "            except ZeroDivisionError as error:\n                self._give",
            ),
            "transforms are drawn beside the student": ("after.policy.transforms or not", "not"),
            "a bulk pass does not stop": ("if self.closing or self.stop():", "if self.closing:"),
            "what is damaged stays": ("if files.discard(view.number, block):", "if view:"),
        },
    ),
    *in_file(
        "training/signals.py",
        "training/test_signals.py",
        faults={
            "the mean is kept": ("exact - exact.mean(dim=1, keepdim=True)", "exact"),
            "each other class has all that remains": (" - math.log(logits.shape[1] - largest)", ""),
            "the largest are among the others": ("centred.scatter(1, classes, -math.inf)", "centred"),
            "overflow": (
                "values.clamp(-_LARGEST, _LARGEST) if number == torch.float16 else values",
                "values",
            ),
            "answers that are no numbers are kept": (
                "check_finite(bool(torch.isfinite(logits).all()))",
                "check_finite(True)",
            ),
        },
    ),
    *in_file(
        "ladder/spoken.py",
        "ladder/test_spoken.py",
        faults={
            "signals of any teacher": ('"teacher": teacher.key,', '"teacher": "",'),
            "signals of any views": ('"views": views,', '"views": bool(views),'),
            "shares of a mixture of any release": ("if job.views.policy.mixup:", "if False:"),
            "signals of any data": ('"data": dataset.fingerprint,', '"data": "",'),
            "signals in any form": ('"kept": job.signals.definition(classes=classes),', '"kept": "",'),
            "few views are others": ('    views.pop("distinct", None)', "    views"),
        },
    ),
    *in_file(
        "training/precision.py",
        "ladder/test_spoken.py",
        "training/test_precision.py",
        faults={
            "signals of any number format": ('"precision": training.precision,', '"precision": "",'),
            "signals of any number of threads": ('"threads": training.threads,', '"threads": 1,'),
            "signals of any release of torch": (
                '"device": training.device,\n        "torch": torch.__version__,',
                '"device": training.device,',
            ),
            "signals of any instructions for bfloat16": ('{"avx512_bf16", "amx_bf16", "amx_tile"}', "set()"),
            "rounded weights are shared by threads": (", cache_enabled=False)", ")"),
            "float32 is TF32": ("allow_tf32=False", "allow_tf32=True"),
            "a stage on the processor asks for a GPU": (' if training.device == "cuda" else []', ""),
        },
    ),
    *in_file(
        "store/signals.py",
        "store/test_signals.py",
        "training/test_speaking.py",
        faults={
            "the last hundredth of a disk is not left": ("usage.free - usage.total // 100", "usage.free"),
            "what a file holds is not checked": ('said.get("sha256") != hash_of_tensors(tensors)', "False"),
            "a file of another view is believed": (
                "said != sealed(said) or {name: said.get(name) for name in named} != named",
                "said != sealed(said)",
            ),
            "answers of any weights": (
                'if "weights" in expected and said.get("weights")',
                'if False and said.get("weights")',
            ),
            "what is whole is taken away": (
                "                self.read(view, block)\n            except Damaged:",
                "                raise Damaged\n            except Damaged:",
            ),
            "what cannot be opened is damaged": ("raise Unreadable(f", "raise Damaged(f"),
        },
    ),
    *in_file(
        "models/folding.py",
        "models/test_folding.py",
        faults={
            "a layer that is used twice is folded": (
                "once = self.calls[layer] == self.calls[name] == 1",
                "once = True",
            ),
            "a layer that others read is folded": ("self.readers[layer] == {name}", "True"),
            "folded without a check": ("return pairs if bool(close) else []", "return pairs"),
            "mean and variance change places": (
                "_wide(normalisation.running_mean),\n        _wide(normalisation.running_var),",
                "_wide(normalisation.running_var),\n        _wide(normalisation.running_mean),",
            ),
        },
    ),
    *in_file(
        "training/evaluate.py",
        "training/test_evaluate.py",
        faults={
            "every module is in train mode afterwards": ("module.training = mode", "module.training = True"),
            "looked at in train mode": ("    model.eval()\n", ""),
            "looked at with gradients": ("@torch.no_grad()\ndef outputs", "def outputs"),
        },
    ),
    *in_file(
        "training/checkpoint.py",
        "training/test_checkpoint.py",
        faults={
            "a damaged checkpoint is read": (
                'if files.sha256_of_bytes(content)[:16] != path.stem.partition("-")[2]:',
                "if False:",
            ),
            "the oldest checkpoint is read": ("reverse=True", "reverse=False"),
            "tuples come back as lists": (
                'return entries if kind == "list" else tuple(entries)',
                "return entries",
            ),
            "two names of one path overwrite each other": ('path += "\'"', "break"),
        },
    ),
    *in_file(
        "training/settings.py",
        "training/test_settings.py",
        "ladder/test_graph.py",
        faults={
            "key forgets the learning rate": (
                'for name in ("checkpoint_minutes", "workers"):',
                'for name in ("checkpoint_minutes", "workers", "lr"):',
            ),
            "key forgets what decays where something does": (
                "if not self.weight_decay:",
                "if self.weight_decay:",
            ),
            "key forgets the milestones of a step schedule": (
                'if self.schedule != "step":',
                'if self.schedule == "step":',
            ),
            "key forgets the threads on a CPU": ('if self.device == "cuda":', 'if self.device == "cpu":'),
            "a batch of one is allowed": ('("batch_size", 2, 1_000_000)', '("batch_size", 1, 1_000_000)'),
        },
    ),
    # --------------------------------------------------------------------------------------------------- data
    *in_file(
        "data/views.py",
        "data/test_views.py",
        faults={
            "copies see the same": (
                'stream_seed(view.seed, "view", view.number, view.copy)',
                'stream_seed(view.seed, "view", view.number)',
            ),
            "passes see the same": (
                'stream_seed(view.seed, "view", view.number, view.copy)',
                'stream_seed(view.seed, "view", view.copy)',
            ),
            "the last window is never taken": (
                "columns + _below(words[1], 2 * policy.crop + 1)",
                "columns + _below(words[1], 2 * policy.crop)",
            ),
            "rows and columns are cropped by one number": (
                "columns + _below(words[1], 2 * policy.crop + 1)",
                "columns + _below(words[0], 2 * policy.crop + 1)",
            ),
            "the share is the partner's": (
                "mixed.sub_(rest).mul_(weight).add_(rest)",
                "rest.sub_(mixed).mul_(weight).add_(mixed)",
            ),
            "erases whom it should leave": (
                "_uniform(words[0]) < policy.erase",
                "_uniform(words[0]) >= policy.erase",
            ),
            "erases with black only": (
                "(covered & policy.fill) if policy.fill else",
                "(covered & 0) if policy.fill else",
            ),
            "key forgets the value that erases": (
                '                definition["fill"] = self.fill\n',
                "                pass\n",
            ),
        },
    ),
    *in_file(
        "data/splits.py",
        "data/test_splits.py",
        faults={
            "validation images are trained on": (
                "return _rest(len(labels), validation), validation",
                "return np.arange(len(labels)), validation",
            ),
            "test images are trained on": (
                "return _rest(len(labels), test), test",
                "return np.arange(len(labels)), test",
            ),
            "the seed of the split is ignored": (
                'shuffled_rows(labels, label, seed=seed, purpose="validation")',
                'shuffled_rows(labels, label, seed=0, purpose="validation")',
            ),
            "a small class gives nearly all of its samples": (
                "max(share, Fraction(1, 2))",
                "max(share, Fraction(1))",
            ),
            "0.29 of 100 is 28": ("Fraction(repr(float(fraction)))", "Fraction(fraction)"),
            "a class is lost before another gives two": ("place[rows[0]] = 0.0", "place[rows[0]] = 0.5"),
        },
    ),
    *in_file(
        "data/batches.py",
        "data/test_batches.py",
        faults={
            "a batch of one is left": ("len(order) - starts[-1] == 1", "len(order) - starts[-1] == 0"),
            "every epoch has one order": (
                'numpy_stream(seed, "order", epoch)',
                'numpy_stream(seed, "order", 0)',
            ),
            "partners carry the sample's label": (
                "partner_labels=_labels(split, partners)",
                "partner_labels=_labels(split, positions)",
            ),
            "negative positions count from the end": (
                "if not 0 <= extreme < samples:",
                "if not extreme < samples:",
            ),
            "the pixels that are kept may be written to": (
                "images if images.flags.writeable else images.copy()",
                "images",
            ),
        },
    ),
    # ----------------------------------------------------------------- processes, trainings of controls, and what is said
    *in_file(
        "processes.py",
        "test_processes.py",
        faults={
            "Ctrl-C reaches the server": ("with _blocked(STOPPING), _env", "with _env"),
            "the server imports from the working folder": ('PYTHONSAFEPATH="1"', 'PYTHONSAFEPATH=""'),
            "a socket's path is measured in characters": (
                "len(os.fsencode(gettempdir()))",
                "len(gettempdir())",
            ),
        },
    ),
    *in_file(
        "ladder/workers.py",
        "ladder/test_workers.py",
        faults={
            "a worker has the environment of its server": (
                "os.environ.update(environment)",
                "os.environ.update({})",
            ),
        },
    ),
    *in_file(
        "recipe/by_shape.py",
        "recipe/test_teachings.py",
        faults={
            "the assistants of a control are trained otherwise, too": (
                'stage.training is not None and stage.name in (name, f"{name} {ENSEMBLE}")',
                "stage.training is not None",
            ),
            "peers of a control are trained as ever": ('in (name, f"{name} {ENSEMBLE}")', "== name"),
        },
    ),
    *in_file(
        "recipe/compat.py",
        "recipe/test_checking.py",
        faults={
            "whom nobody teaches has the halved loss's rate": ("if name in whole_labels}", "if False}"),
            "the rate of bkd is that of one weight": ('alone["lr"] / (1 - weight)', 'alone["lr"] / 0.5'),
            "compat overrules a control's own rate": ("{**untaught, **said}", "{**said, **untaught}"),
        },
    ),
    *in_file(
        "recipe/teachings.py",
        "test_bad_input.py",
        faults={
            "what stands under one network is overlooked": (
                "for where, own in trained]",
                "for where, own in []]",
            )
        },
    ),
    *in_file(
        "teaching/balanced.py",
        "teaching/test_balanced.py",
        faults={
            "labels weigh from the first epoch": (
                "class_weights = self.weights_in(step.epoch)\n        if class_weights is None:\n            return Labels()",
                "class_weights = self.weights_in(10**9)\n        if class_weights is None:\n            return Labels()",
            )
        },
    ),
    *in_file(
        "ladder/graph.py",
        "ladder/test_graph.py",
        faults={
            "the int8 form is a control": ("if stage.quantised))", "if False))"),
            "any temperature is one of soft targets": ("isinstance(method, SoftTargets | Decoupled)", "True"),
            "who begins as the teacher is not told": ("return drawn and same and", "return False and"),
        },
    ),
    *in_file(
        "report/statistics.py",
        "report/test_statistics.py",
        faults={
            "equal differences are certain": (
                "return Difference(n=n, mean=mean, std=0.0, interval=None, p=None)",
                "return Difference(n=n, mean=mean, std=0.0, interval=(mean, mean), p=0.0)",
            ),
        },
    ),
    *in_file(
        "report/summary.py",
        "report/test_summary.py",
        faults={
            "a plan of many arms promises what one shows": ("LEVEL / compared", "LEVEL"),
            "a spread of one pair is believed": ("degrees >= DEGREES", "degrees >= 1"),
        },
    ),
    *in_file(
        "report/published.py",
        "report/test_published.py",
        faults={"figures of another run are shown": ('!= value["recipe"]', '== ""')},
    ),
    *in_file(
        "report/card.py",
        "report/test_card.py",
        faults={
            "every card has a claim": ("        if claimed:\n", "        if True:\n"),
            "the first of peers was taught by nobody": ("if not teachers and not peers:", "if not teachers:"),
        },
    ),
    *in_file(
        "teaching/soft_targets.py",
        "teaching/test_peers.py",
        faults={"peers count as batches": ("if step.number != self.counted:", "if True:")},
    ),
    *in_file(
        "models/features.py",
        "models/test_features.py",
        faults={
            "replicas are joined as they come": ("key=lambda device: order.index(device.index)", "key=str")
        },
    ),
    *in_file(
        "training/precision.py",
        "training/test_precision.py",
        faults={"bf16 wherever it is native": ('return "amx_bf16" in', 'return True or "amx_bf16" in')},
    ),
)


@dataclass(frozen=True)
class Found:
    """What became of one fault."""

    mutant: Mutant
    state: str  # killed, survived, or why it could not be planted
    seconds: float


def misplaced(mutant: Mutant) -> str:
    """Why the fault cannot be planted in the sources as they are; empty where it can."""
    path = ROOT / "src" / "understudy" / mutant.file
    count = path.read_text("utf-8").count(mutant.old) if path.exists() else 0
    absent = [name for name in mutant.tests if not (ROOT / "tests" / name).exists()]
    if absent:
        return f"no tests {', '.join(absent)}"
    return "" if count == 1 else f"its text is there {count} times"


def copy_of_tree(folder: Path) -> None:
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)


def tests_pass(folder: Path, tests: tuple[str, ...]) -> bool:
    """Runs test files in a copy of the tree, on the sources of that copy."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "PYTHONDONTWRITEBYTECODE": "1",  # a fault of the same length in the same second would not be compiled
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # Python's own order of places, so that the copy is what is imported even where the package is installed
    where = subprocess.run(
        [sys.executable, "-c", "import understudy; print(understudy.__file__)"],
        cwd=folder, env=environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if not Path(where.strip()).is_relative_to(folder):
        sys.exit(f"the tests would look at {where.strip()}, not at the copy in {folder}")
    try:
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in tests)],
            cwd=folder, env=environment, capture_output=True, timeout=LONGEST, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # 2: the sources cannot even be imported any more
        sys.exit(f"pytest cannot run {', '.join(tests)}: {done.stdout.decode()[-2000:]}")
    return done.returncode == 0


def tried(mutant: Mutant, folder: Path) -> Found:
    problem = misplaced(mutant)
    if problem:
        return Found(mutant, problem, 0.0)
    path = folder / "src" / "understudy" / mutant.file
    whole = path.read_text("utf-8")
    began = time.monotonic()
    path.write_text(whole.replace(mutant.old, mutant.new), "utf-8")
    try:
        state = "survived" if tests_pass(folder, mutant.tests) else "killed"
    finally:
        path.write_text(whole, "utf-8")
    return Found(mutant, state, time.monotonic() - began)


def row(found: Found) -> str:
    return f"| {found.mutant.file} | {found.mutant.what} | {found.state} | {found.seconds:.1f} |"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", help="only faults whose file or description holds one of these")
    parser.add_argument("--jobs", type=int, default=1, help="faults tried side by side")
    parser.add_argument("--check", action="store_true", help="only look whether all of them can be planted")
    said = parser.parse_args()
    chosen = [
        mutant
        for mutant in MUTANTS
        if not said.words or any(word in f"{mutant.file} {mutant.what}" for word in said.words)
    ]
    if said.check:
        problems = [
            f"{mutant.file}: {mutant.what}: {misplaced(mutant)}" for mutant in chosen if misplaced(mutant)
        ]
        print("\n".join(problems) or f"{len(chosen)} faults can be planted")
        return bool(problems)
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        folders: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(said.jobs):
            folder = Path(place).resolve() / str(number)
            folder.mkdir()
            copy_of_tree(folder)
            folders.put(folder)

        def one(mutant: Mutant) -> Found:
            mine = folders.get()
            try:
                found = tried(mutant, mine)
            finally:
                folders.put(mine)
            print(row(found), flush=True)
            return found

        every = tuple(dict.fromkeys(name for mutant in chosen for name in mutant.tests))
        first = folders.get()
        if not tests_pass(first, every):
            sys.exit("the tests fail without any fault: mend them first")
        folders.put(first)
        print("| file | fault | state | seconds |\n|---|---|---|---|", flush=True)
        with ThreadPoolExecutor(said.jobs) as pool:
            all_found = list(pool.map(one, chosen))
    killed = sum(found.state == "killed" for found in all_found)
    rest = [found for found in all_found if found.state != "killed"]
    print(
        f"\n{killed} of {len(all_found)} killed, in {sum(found.seconds for found in all_found):.0f} s of testing."
    )
    print(
        f"Python {platform.python_version()}, torch {metadata.version('torch')}, "
        f"pytest {metadata.version('pytest')}, {platform.system()} {platform.machine()}."
    )
    for found in rest:
        print(f"{found.mutant.file}: {found.mutant.what}: {found.state}", file=sys.stderr)
    return bool(rest)


if __name__ == "__main__":
    sys.exit(main())
