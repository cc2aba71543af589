"""Bytes of an image file to pixels, the same pixels on every path.

What is decided here, for every source:

- PNG, JPEG, BMP, GIF (first frame) and WebP are read; orientation tags are not applied.
- Transparent pixels are laid over white. A palette becomes colour; CMYK and the like become red, green, blue.
- One bit per pixel becomes 0 and 255. 16-bit colour keeps its high byte; 16-bit grey, 32-bit and float
  images are refused, since which of their values is white is for their owner to say.
- Colour to grey: ITU-R BT.601 luma, as Pillow rounds it. Grey to colour: the level, three times.
- Resizing takes the largest centred box that has the target's shape and scales it by Pillow's bicubic
  filter, which averages when it shrinks: in one step, what "shorter side, then centre crop" does in two.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from understudy.errors import BadInput

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
PIXEL_LIMIT = 64_000_000
"""Most pixels of one image file: a small file can claim to be an image that fills the memory."""


def shown(path: Path | str) -> str:
    """A path on one printable line."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in str(path)
    )


def decode(
    file: BinaryIO, *, where: str, size: tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
    """Decodes one image file.

    Args:
        file: opened for reading bytes.
        where: the file's name, for messages.
        size: ``(height, width)`` to bring it to, or None.
        channels: 1 or 3; None is 1 for a grey image, 3 for any other.

    Returns:
        ``(height, width, channels)`` uint8, C-contiguous.

    Raises:
        BadInput: not an image, damaged, too large or of a kind that is refused.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > PIXEL_LIMIT:
                raise BadInput(
                    f"{where} claims to have {image.width} x {image.height} pixels; the limit is "
                    f"{PIXEL_LIMIT // 10**6} million for one image: make it smaller or remove it"
                )
            if image.mode in ("I", "F") or image.mode.startswith("I;"):
                raise BadInput(
                    f"{where} has 16 bits or more for a pixel (mode {image.mode}); "
                    f"save it with 8 bits, scaled as it should be seen"
                )
            plain = _without_alpha(image)
            if channels is not None:
                plain = plain.convert("L" if channels == 1 else "RGB")
            pixels = np.asarray(_fit(plain, size))
    except BadInput:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise BadInput(
            f"{where} is not an image, or is damaged; PNG, JPEG, BMP, GIF and WebP are read: "
            f"replace or remove the file"
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadInput(
            f"{where} claims to have far more pixels than the limit of {PIXEL_LIMIT // 10**6} million for one image: "
            f"make it smaller or remove it"
        ) from None
    except Exception as error:  # on damaged bytes Pillow's decoders raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(f"{where} is a damaged image ({reason}): replace or remove the file") from None
    return np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels)


def _without_alpha(image: Image.Image) -> Image.Image:
    """The image in mode L (grey) or RGB."""
    from PIL import Image

    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        seen = image.convert("RGBA")
        seen = Image.alpha_composite(Image.new("RGBA", seen.size, (255, 255, 255, 255)), seen)
        return seen.getchannel("R") if grey else seen.convert("RGB")
    return image.convert("L" if grey else "RGB")


def _fit(image: Image.Image, size: tuple[int, int] | None) -> Image.Image:
    from PIL import Image

    if size is None or size == (image.height, image.width):
        return image
    height, width = size
    scale = max(height / image.height, width / image.width)
    box_height, box_width = min(height / scale, image.height), min(width / scale, image.width)
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def to_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """``(n, height, width, 1 or 3)`` uint8 to ``channels`` channels, as ``decode`` does it."""
    if pixels.shape[-1] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    weights = np.array([19595, 38470, 7471], dtype=np.uint32)  # BT.601 luma in 1/65536, as Pillow has it
    grey = np.empty((*pixels.shape[:-1], 1), dtype=np.uint8)
    for row, image in enumerate(pixels):  # one at a time: the sums are four times as large as the image
        grey[row, ..., 0] = (image @ weights + 0x8000) >> 16
    return grey


def fit_array(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """``(n, height, width, 1 or 3)`` uint8 brought to ``size``, as ``decode`` does it."""
    from PIL import Image

    if size is None or size == pixels.shape[1:3]:
        return pixels
    fitted = np.empty((len(pixels), *size, pixels.shape[3]), dtype=np.uint8)
    for row, image in enumerate(pixels):
        flat = image[..., 0] if pixels.shape[3] == 1 else image
        fitted[row] = np.asarray(_fit(Image.fromarray(flat), size)).reshape(fitted.shape[1:])
    return fitted
