"""How a student is loaded without understudy, for its model card: code where there is some, else words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from understudy.report.markdown import escaped, fenced
from understudy.report.numbers import listing, plain

_IN_ORDER = """\
import json

import torch
from safetensors.torch import load_file
from torch import nn

with open("student.json", encoding="utf-8") as file:
    card = json.load(file)
student = nn.Sequential()
for layer in card["architecture"]["layers"]:
    *groups, name = layer["name"].split(".")
    place = student
    for group in groups:
        if group not in dict(place.named_children()):
            place.add_module(group, nn.Sequential())
        place = place.get_submodule(group)
    place.add_module(name, getattr(nn, layer["type"])(**layer["arguments"]))
student.load_state_dict(load_file("student.safetensors"))
student.eval()

before = card["preprocessing"]
pixels = torch.randint(0, 256, ({shape}))  # images x channels x height x width, 0 to 255: put yours here
images = pixels.float(){resize} / 255
mean, std = (torch.tensor(before[what]).view(1, -1, 1, 1) for what in ("mean", "std"))
with torch.inference_mode():
    logits = student((images - mean) / std)
print([card["class_names"][answer] for answer in logits.argmax(dim=1)])
"""
_RESIZE = """
images = nn.functional.interpolate(images, size=before["size"], mode="bilinear", antialias=True)
images = images"""

_FROM_ELSEWHERE = """\
import {package}
from safetensors.torch import load_file

student = {call}
student.load_state_dict(load_file("student.safetensors"))
student.eval()
"""


_EXPORT = "`understudy export . --to onnx`, in the folder of this card, writes it as one file that runs without {without}."


def loading(student: Mapping[str, Any]) -> str:
    """How the student of ``student.json`` is loaded, as Markdown: code that runs, or what there is to know."""
    architecture = student["architecture"]
    layers = architecture.get("layers") or []
    wiring = plain(architecture.get("wiring") or "")
    before = student["preprocessing"]
    package = wiring.partition(".")[0]
    if wiring.startswith("one layer after the other") and all("." not in layer["type"] for layer in layers):
        image = before.get("size") or before.get("image") or [32, 32]
        if before.get("size"):
            image = before.get("image") or image
        code = _IN_ORDER.format(
            shape=f"4, {before.get('channels', 3)}, {image[0]}, {image[1]}",
            resize=_RESIZE if before.get("size") else "",
        )
        return "With torch and safetensors alone, in the folder of this card:\n\n" + fenced(code, "python")
    changes = _changes(student)
    if package in ("timm", "torchvision") and not changes:
        code = _FROM_ELSEWHERE.format(package=package, call=wiring)
        after = "Its input is described in `student.json` under `preprocessing`."
        return f"With {package} and safetensors, in the folder of this card:\n\n{fenced(code, 'python')}\n\n{after}"
    if package in ("timm", "torchvision"):
        return (
            f"Its network is none that {package} builds any more: {listing(changes)}. `student.json` lists its layers as "
            f"they are, with the names of their tensors in `student.safetensors`; the call that built it before stands "
            f"there under `wiring`, and what is done to an image before under `preprocessing`. "
            + _EXPORT.format(without=f"{package} or understudy")
        )
    said = (
        "`student.json` lists its layers by type of torch.nn, with their arguments and the names of their tensors in "
        "`student.safetensors`; how they are connected stands there in words, under `architecture` and `wiring`, and what "
        "is done to an image before, under `preprocessing`. "
    )
    if any(str(layer["type"]).startswith("understudy.") for layer in layers):
        said += "Layers whose type begins with understudy are its own. "
    else:
        said += "Nothing of understudy is needed to run it. "
    return said + _EXPORT.format(without="understudy")


def _changes(student: Mapping[str, Any]) -> list[str]:
    """What was done to the network that its name stands for."""
    strip = (student.get("network") or {}).get("strip")
    said = [f"its k × k filters became 1 × {escaped(strip)}"] if strip is not None else []
    if student.get("structure") is not None:
        said.append("it has fewer channels (`structure` says which were kept)")
    return said
