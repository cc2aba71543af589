import contextlib
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from understudy.data.decoding import PIXEL_LIMIT, decode, fit_array, shown, to_channels
from understudy.errors import BadInput

rng = np.random.default_rng(0)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_colour_comes_back_exactly(kind):
    pixels = noise(5, 7, 3)
    options = {"lossless": True} if kind == "WEBP" else {}
    np.testing.assert_array_equal(
        decode(encoded(Image.fromarray(pixels), kind, **options), where="a"), pixels
    )


@pytest.mark.parametrize("kind", ["JPEG", "GIF"])
def test_other_formats_give_what_pillow_gives(kind):
    file = encoded(Image.fromarray(noise(8, 8, 3)), kind)
    expected = np.asarray(Image.open(io.BytesIO(file.getvalue())).convert("RGB"))
    np.testing.assert_array_equal(decode(file, where="a"), expected)


def test_grey_stays_one_channel_unless_three_are_asked_for():
    pixels = noise(5, 7)
    assert decode(encoded(Image.fromarray(pixels)), where="a").shape == (5, 7, 1)
    colour = decode(encoded(Image.fromarray(pixels)), where="a", channels=3)
    np.testing.assert_array_equal(colour, np.repeat(pixels[..., None], 3, axis=2))


def test_one_bit_becomes_black_and_white():
    image = Image.fromarray(noise(4, 4) > 127)
    assert set(np.unique(decode(encoded(image), where="a"))) <= {0, 255}


def test_a_palette_becomes_colour():
    image = Image.fromarray(noise(8, 8, 3)).quantize(16)
    np.testing.assert_array_equal(decode(encoded(image), where="a"), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_show_white_and_opaque_ones_themselves(mode):
    pixels = noise(4, 4, 4 if mode == "RGBA" else 2)
    pixels[..., -1] = 255
    pixels[0, 0, -1] = 0
    image = Image.merge(mode, [Image.fromarray(band) for band in np.moveaxis(pixels, 2, 0).copy()])
    out = decode(encoded(image), where="a")
    expected = pixels[..., :-1].copy()
    expected[0, 0] = 255
    np.testing.assert_array_equal(out, expected)


def test_a_transparent_palette_colour_shows_white():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    out = decode(encoded(image, transparency=0), where="a")
    np.testing.assert_array_equal(out, [[[255, 255, 255], [40, 50, 60]]])


def test_more_than_eight_bits_of_grey_are_refused():
    file = encoded(Image.fromarray(np.full((3, 3), 40000, dtype=np.uint16)))
    with pytest.raises(BadInput, match=r"^deep\.png has 16 bits or more .* save it with 8 bits"):
        decode(file, where="deep.png")


def claims(width: int, height: int) -> io.BytesIO:
    """A PNG of a few bytes that says it is that large."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return io.BytesIO(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [9_000, 11_000, 60_000])  # our limit, Pillow's warning, Pillow's error
def test_a_bomb_is_refused_before_it_is_unpacked(side):
    assert side * side > PIXEL_LIMIT
    with pytest.raises(BadInput, match=r"^bomb\.png claims to have .*64 million"):
        decode(claims(side, side), where="bomb.png")


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"%PDF-1.4"])
def test_what_is_no_image_is_refused_by_name(content):
    with pytest.raises(BadInput, match=r"^x\.png is not an image"):
        decode(io.BytesIO(content), where="x.png")


def test_a_format_that_is_not_listed_is_not_read():
    with pytest.raises(BadInput, match=r"PNG, JPEG, BMP, GIF and WebP"):
        decode(encoded(Image.fromarray(noise(4, 4, 3)), "TIFF"), where="x.png")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "BMP", "GIF", "WEBP"]), st.data())
def test_damaged_bytes_give_pixels_or_one_line_and_nothing_else(kind, data):
    content = bytearray(encoded(Image.fromarray(noise(9, 9, 3)), kind).getvalue())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with contextlib.suppress(BadInput):
            assert decode(io.BytesIO(bytes(content)), where="x.png", size=(4, 4)).dtype == np.uint8
            return
        with pytest.raises(BadInput, match=r"^x\.png [^\n]*$"):
            decode(io.BytesIO(bytes(content)), where="x.png", size=(4, 4))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 20), st.integers(1, 20))
def test_any_size_can_be_brought_to_any_other(height, width, to_height, to_width):
    file = encoded(Image.fromarray(noise(height, width, 3)))
    assert decode(file, where="a", size=(to_height, to_width)).shape == (to_height, to_width, 3)


def test_the_right_size_is_left_alone():
    pixels = noise(6, 5, 3)
    np.testing.assert_array_equal(decode(encoded(Image.fromarray(pixels)), where="a", size=(6, 5)), pixels)


def test_resizing_is_shorter_side_then_centre_crop():
    image = Image.fromarray(noise(10, 30, 3))
    expected = image.resize((15, 5), Image.Resampling.BICUBIC).crop((5, 0, 10, 5))
    np.testing.assert_array_equal(decode(encoded(image), where="a", size=(5, 5)), np.asarray(expected))


def test_an_extreme_shape_is_resized_without_a_huge_step_between():
    assert decode(encoded(Image.fromarray(noise(1, 60_000))), where="a", size=(64, 64)).shape == (64, 64, 1)


@settings(max_examples=30, deadline=None)
@given(
    npst.arrays(
        np.uint8, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
    )
)
def test_arrays_and_files_are_resized_to_the_same_pixels(pixels):
    files = [encoded(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)) for image in pixels]
    for channels in (1, 3):
        np.testing.assert_array_equal(
            fit_array(to_channels(pixels, channels), (4, 6)),
            [decode(io.BytesIO(f.getvalue()), where="a", size=(4, 6), channels=channels) for f in files],
        )


def test_grey_of_every_colour_is_what_pillow_makes_of_it():
    pixels = rng.integers(0, 256, (1, 300, 300, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        to_channels(pixels, 1)[0, ..., 0], np.asarray(Image.fromarray(pixels[0]).convert("L"))
    )


def test_a_path_is_shown_on_one_line():
    assert shown("a\nb\x1b[31m\udcff.png") == r"a\nb\x1b[31m\udcff.png"
