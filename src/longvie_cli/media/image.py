"""Still pictures: what Pillow reads safely, upright, as 8-bit RGB."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from longvie_cli.errors import MediaError
from longvie_cli.media.ffmpeg import MAX_PIXELS, check_readable
from longvie_cli.media.formats import other_picture_error
from longvie_cli.media.frames import Fit, Frame, resize_frame

if TYPE_CHECKING:
    from PIL import Image

# Formats of pictures alone: Pillow hands some others (EPS) to programs of the machine.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "JPEG2000", "TIFF", "BMP", "GIF", "PPM", "QOI")
_EXIF_ORIENTATION = 274
_EXIF_ON_ITS_SIDE = (5, 6, 7, 8)
# Of TIFF. Camera RAW files are TIFF files whose first picture is a thumbnail.
_NEW_SUBFILE_TYPE, _DNG_VERSION, _COLOUR_FILTER_ARRAY = 254, 50706, 32803
_PHOTOMETRIC = 262
_NO_COLOURS = ("I", "F")


def read_image(path: Path, *, height: int, width: int, fit: Fit) -> Frame:
    """Return a still image upright (EXIF), transparent parts over black, at height x width.

    Of an animation or of several pages, the first picture.

    Raises:
        MediaError: The file is missing, no image, damaged, or not of the size `native` needs.
    """
    from PIL import ImageOps

    with _opened(path) as stored:
        frame = _rgb(ImageOps.exif_transpose(stored))
    rows, columns = frame.shape[:2]
    if fit == "native" and (rows, columns) != (height, width):
        raise MediaError(f"{path}: the image is {columns}x{rows}, but {width}x{height} is needed.")
    return resize_frame(frame, height, width, fit)


def image_size(path: Path) -> tuple[int, int]:
    """Return the height and width of a still image held upright (EXIF).

    Raises:
        MediaError: The file is missing or no image.
    """
    from PIL import ImageOps

    with _opened(path) as stored:
        # Of TIFF, Pillow has turned the size already.
        turned = stored.getexif().get(_EXIF_ORIENTATION, 1) in _EXIF_ON_ITS_SIDE
        width, height = (ImageOps.exif_transpose(stored) if turned else stored).size
    return height, width


def describe_image(path: Path) -> list[str]:
    """Return one line for each thing that is done to a still image before it is brought to size.

    Raises:
        MediaError: The file is missing or no image.
    """
    lines = []
    with _opened(path) as stored:
        if (count := getattr(stored, "n_frames", 1)) > 1 and stored.format not in ("MPO", "JPEG"):
            lines.append(f"it holds {count} pictures; the first is used.")
        if stored.getexif().get(_EXIF_ORIENTATION, 1) not in (0, 1):
            lines.append("it is turned or mirrored as the file asks.")
        if stored.has_transparency_data:
            lines.append("where it is transparent, it is shown over black.")
        if stored.mode == "CMYK":
            lines.append("its colours of print (CMYK) are converted.")
        if stored.mode.startswith("I;16"):
            lines.append("deep colours are reduced to 8 bits.")
    return [f"{path.name}: {line}" for line in lines]


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever is wrong with it, when it is read as well, ends as a MediaError."""
    from PIL import Image, UnidentifiedImageError, features

    check_readable(path)
    try:
        with _without_remarks(), Image.open(path, formats=_FORMATS) as stored:
            _refuse_raw(path, stored)
            if stored.width * stored.height > MAX_PIXELS:
                raise ValueError(f"{stored.width}x{stored.height} is more than {MAX_PIXELS} pixels")
            yield stored
    except UnidentifiedImageError as reason:
        names = ["PNG", "JPEG", "WebP", "TIFF", "BMP", "GIF", "PPM", "QOI"]
        names += ["AVIF"] if features.check("avif") else []
        names += ["JPEG 2000"] if features.check("jpg_2000") else []
        raise other_picture_error(path, names) from reason
    except (
        *(OSError, ValueError, SyntaxError, RuntimeError, EOFError),
        Image.DecompressionBombError,
    ) as reason:
        raise MediaError(
            f"{path}: cannot be read as an image ({reason}).",
            hint="If it is cut off or damaged, copy or export it again.",
        ) from reason


def _refuse_raw(path: Path, stored: Image.Image) -> None:
    tags = getattr(stored, "tag_v2", {}) if stored.format == "TIFF" else {}
    is_thumbnail = tags.get(_NEW_SUBFILE_TYPE, 0) == 1
    if is_thumbnail or _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) == _COLOUR_FILTER_ARRAY:
        raise MediaError(
            f"{path}: this is a camera's RAW file, whose picture has to be developed.",
            hint="Export it as JPEG, PNG or 16-bit TIFF first.",
        )
    if stored.mode in _NO_COLOURS:
        raise MediaError(
            f"{path}: its {stored.mode} pixels of 32 bits are measurements, not colours.",
            hint="Export it as a picture of 8 or 16 bits.",
        )


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep to itself what Pillow remarks on odd files; what it cannot read it says by errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _rgb(picture: Image.Image) -> Frame:
    from PIL import Image

    if picture.mode.startswith("I;16"):
        grey = (np.asarray(picture).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    if picture.mode == "CMYK":
        picture = _from_print(picture)
    if picture.has_transparency_data:
        coloured = picture.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, coloured)
    return np.asarray(picture.convert("RGB"))


def _from_print(picture: Image.Image) -> Image.Image:
    """Return colours of print as sRGB, by the profile of the file where it has one."""
    from PIL import ImageCms

    profile = picture.info.get("icc_profile")
    if not profile:
        return picture
    try:
        inks = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        shown = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, inks, shown, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return picture  # the profile is damaged, or of something else
    assert converted is not None, "only None in place"
    return converted
