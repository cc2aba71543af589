"""The delivered student of a run, built again from its two files alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from understudy.errors import BadInput
from understudy.models import build, check_name
from understudy.models.file_checks import content_of
from understudy.models.peers import PeerForm, peer_network
from understudy.models.preprocessing import Preprocessing
from understudy.models.strips import stripped
from understudy.models.weights import put_weights, read_weights
from understudy.store.files import sha256_of_bytes

CARD = "student.json"
WEIGHTS = "student.safetensors"
_RESULT = "result.json"
_AGAIN = "Run the same command with the same --out again to write it anew."


@dataclass(frozen=True, kw_only=True)
class Student:
    """A trained network and what belongs to it.

    Attributes:
        model: in eval mode, float32, on the CPU.
        preprocessing: what is done to pixels before the network sees them.
        class_names: one for each logit.
        channels: of the images.
        image: height and width of the images, before they are resized.
        card: all of ``student.json``.
        weights: the file that the weights are from.
    """

    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    channels: int
    image: tuple[int, int]
    card: Mapping[str, Any]
    weights: Path

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images as the network takes them."""
        return self.preprocessing.size or self.image


def read_student(folder: Path) -> Student:
    """Builds the student of a run again, from ``student.json`` and the weights beside it; no store is needed.

    Args:
        folder: of the run, or the path of its ``student.json``.

    Raises:
        BadInput: no run, a run without a student so far, damaged files, weights that are not those of the card, or a
            network of the user's own, which only the user's code can build.
    """
    path = folder if folder.suffix == ".json" else folder / CARD
    card = _card(path, folder)
    try:
        known = card["preprocessing"]
        prepared = Preprocessing(
            mean=tuple(known["mean"]),
            std=tuple(known["std"]),
            size=tuple(known["size"]) if known["size"] else None,
        )
        channels, image = int(known["channels"]), (int(known["image"][0]), int(known["image"][1]))
        names = tuple(str(name) for name in card["class_names"])
        weights, sha256 = path.parent / str(card["weights"]["file"]), card["weights"]["sha256"]
        network = _network(card, path)
        structure = card.get("structure")
        model = _built(network, structure, channels=channels, size=prepared.size or image)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{path} is damaged: {type(error).__name__} {error}. {_AGAIN}") from error
    if sha256_of_bytes(content_of(weights)) != sha256:
        raise BadInput(
            f"{weights} is not the file that {path.name} describes: its SHA-256 is another. {_AGAIN}"
        )
    put_weights(model, read_weights(weights), source=str(weights))
    return Student(
        model=model.float().eval().requires_grad_(False),
        preprocessing=prepared,
        class_names=names,
        channels=channels,
        image=image,
        card=card,
        weights=weights,
    )


def _card(path: Path, folder: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        if (folder / _RESULT).is_file():
            raise BadInput(
                f"{folder} has no student yet: none of its students is trained to the end. "
                f"Run the same command with the same --out again to go on."
            ) from error
        raise BadInput(
            f"{folder} is no run's folder: {path} is not there. Give the folder that `understudy run` wrote with --out."
        ) from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}. Mend its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} is damaged: it is not JSON ({error}). {_AGAIN}") from error
    if not isinstance(value, dict) or not isinstance(value.get("weights"), dict):
        raise BadInput(
            f"{path} is not a student.json that a run wrote: it names no file of weights. {_AGAIN}"
        )
    return value


def _network(card: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the network was built from; of cards written before that was told apart, from the architecture."""
    network = card.get("network")
    if network is None:
        described = card["architecture"]
        own = "wiring" not in described or described["wiring"].startswith("as in the forward method")
        network = {"name": described["name"], **described["arguments"], "factory": own}
    if network["factory"]:
        raise BadInput(
            f"{path} describes {card['name']}, a network made by code of yours, which the command cannot call. In Python, "
            f"understudy.deploy.onnx_export.write_onnx(model, path, channels=, size=) and its neighbours take the module."
        )
    if not network["name"]:
        raise BadInput(f"{path} describes a network that is a file itself; there is nothing to build.")
    check_name(network["name"])
    return dict(network)


def _built(network: Mapping[str, Any], structure: Any, *, channels: int, size: tuple[int, int]) -> nn.Module:
    width = {"width": network["width"]} if "width" in network else {}
    # initial weights are drawn, and all of them replaced: nobody's random numbers are used up for that
    with torch.random.fork_rng(devices=[]):

        def one() -> nn.Module:
            made = build(network["name"], classes=network["classes"], channels=channels, size=size, **width)
            if not network.get("strip"):
                return made
            return stripped(made, network["strip"], part=network.get("strip_part", "all"))

        peers = network.get("peers")
        if peers:
            form = PeerForm(count=peers["count"], split=peers["split"])
            model: nn.Module = peer_network(one, form, channels=channels, size=size)
        else:
            model = one()
    if structure is not None:
        from understudy.structure.shrinking import shrunk
        from understudy.structure.structures import Structure

        model = shrunk(model, Structure.from_dict(structure), channels=channels, size=size)
    if network.get("quantised"):
        from understudy.models.fake_quantisation import fake_quantised

        model = fake_quantised(model, torch.zeros(2, channels, *size))
    return model
