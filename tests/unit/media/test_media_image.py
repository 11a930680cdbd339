"""Still pictures as people have them: each read right, or named."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from longvie_cli.errors import MediaError
from longvie_cli.media.image import describe_image, image_size, read_image

SIZE = {"height": 16, "width": 24, "fit": "native"}


def picture(mode: str = "RGB", colour: object = (200, 40, 60)) -> Image.Image:
    return Image.new(mode, (24, 16), colour)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("png", {}),
        ("jpg", {"quality": 100, "subsampling": 0}),
        ("webp", {"lossless": True}),
        ("avif", {"quality": 100, "subsampling": "4:4:4"}),
        ("jp2", {}),
        ("tiff", {}),
        ("bmp", {}),
        ("ppm", {}),
        ("qoi", {}),
    ],
)
def test_what_pillow_reads_is_read(tmp_path, suffix, options):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    picture().save(tmp_path / f"a.{suffix}", **options)
    shown = read_image(tmp_path / f"a.{suffix}", **SIZE)
    assert np.abs(shown.astype(int) - (200, 40, 60)).max() <= 3
    assert image_size(tmp_path / f"a.{suffix}") == (16, 24)
    assert describe_image(tmp_path / f"a.{suffix}") == []


def test_of_an_animation_the_first_picture_is_shown_and_that_is_said(tmp_path):
    for name in ("a.gif", "a.webp", "a.png", "a.tiff"):
        later = [picture(colour="blue")]
        picture(colour="red").save(tmp_path / name, save_all=True, append_images=later)
        assert read_image(tmp_path / name, **SIZE)[0, 0, 0] > 200
        assert "it holds 2 pictures; the first is used." in describe_image(tmp_path / name)[0]


def test_a_picture_held_on_its_side_is_upright(tmp_path):
    tags = Image.Exif()
    tags[274] = 6
    for name in ("a.jpg", "a.png", "a.webp", "a.tiff"):
        picture().save(tmp_path / name, exif=tags)
        assert image_size(tmp_path / name) == (24, 16)
        assert read_image(tmp_path / name, height=24, width=16, fit="native").shape == (24, 16, 3)
        assert "turned or mirrored" in describe_image(tmp_path / name)[0]


def test_transparent_parts_are_black(tmp_path):
    for mode, colour in (("RGBA", (255, 255, 255, 0)), ("LA", (255, 0))):
        picture(mode, colour).save(tmp_path / "clear.png")
        assert not read_image(tmp_path / "clear.png", **SIZE).any()
        assert "transparent" in describe_image(tmp_path / "clear.png")[0]


def test_sixteen_bits_and_colours_of_print(tmp_path):
    Image.fromarray(np.full((16, 24), 0x8000, np.uint16)).save(tmp_path / "deep.png")
    assert (read_image(tmp_path / "deep.png", **SIZE) == 128).all()
    assert "reduced to 8 bits" in describe_image(tmp_path / "deep.png")[0]
    picture("CMYK", (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=100)
    red, green, blue = read_image(tmp_path / "print.jpg", **SIZE)[0, 0]
    assert red > 200 and green < 60 and blue < 60
    assert "CMYK" in describe_image(tmp_path / "print.jpg")[0]


def test_a_profile_of_something_else_does_not_spoil_a_picture_of_print(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture("CMYK", (0, 255, 255, 0)).save(tmp_path / "print.jpg", icc_profile=profile, quality=100)
    assert read_image(tmp_path / "print.jpg", **SIZE)[0, 0, 0] > 200


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC picture"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL picture"),
        (b"FUJIFILMCCD-RAW 0201", "a camera's RAW file"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1", "a camera's RAW file"),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"%PDF-1.7", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "a PostScript file"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"a drawing \(SVG\)"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"nothing of the kind", "no picture in a format that is read"),
    ],
)
def test_others_are_named_and_so_are_the_formats_that_are_read(tmp_path, head, words):
    path = tmp_path / "a.jpg"
    path.write_bytes(head + bytes(200))
    for read in (image_size, describe_image, lambda path: read_image(path, **SIZE)):
        with pytest.raises(MediaError, match=words) as error:
            read(path)
        assert "PNG, JPEG, WebP" in error.value.hint
    if "HEIC" in words:
        assert "heif-convert" in error.value.hint


def test_a_raw_file_is_not_taken_for_its_thumbnail(tmp_path):
    for tag, value in ((254, 1), (50706, (1, 4, 0, 0))):
        info = Image.Exif()
        info[tag] = value if tag == 254 else bytes(value)
        picture().save(tmp_path / "a.tif", exif=info, tiffinfo={tag: info[tag]})
        with pytest.raises(MediaError, match="RAW file"):
            read_image(tmp_path / "a.tif", **SIZE)


def test_measurements_are_no_colours(tmp_path):
    picture("F", 0.5).save(tmp_path / "float.tiff")
    with pytest.raises(MediaError, match="measurements, not colours"):
        read_image(tmp_path / "float.tiff", **SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "avif", "jp2"])
def test_a_truncated_picture_says_so(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, format={"jpg": "JPEG", "jp2": "JPEG2000"}.get(suffix, suffix))
    path = tmp_path / f"short.{suffix}"
    path.write_bytes(data.getvalue()[: len(data.getvalue()) * 6 // 10])
    with pytest.raises(MediaError, match="short"):
        read_image(path, **SIZE)
