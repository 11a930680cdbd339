"""Which formats are read, and what a file is that has none of them."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Sequence
from pathlib import Path

from longvie_cli.errors import MediaError

# What is read: formats whose files hold all there is. Others name further files that ffmpeg would
# open (playlists, DASH, SDP, numbered pictures, drawings), draw text, or run scripts.
FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpegtsraw", "mpeg", "flv", "live_flv", "asf", "ogg"),
    *("mxf", "nut", "nsv", "rm", "gxf", "dv", "wtv", "swf", "ivf", "yuv4mpegpipe", "pva", "ty"),
    *("dhav", "kux", "cine", "r3d", "flic", "smk", "bink", "mjpeg", "mjpeg_2000", "mpjpeg"),
    *("h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo", "vc1", "h261", "h263", "dirac"),
    *("dnxhd", "evc", "apv", "cavsvideo", "avs2", "avs3"),
    *("wav", "w64", "mp3", "flac", "aac", "loas", "ac3", "eac3", "ac4", "dts", "dtshd", "truehd"),
    *("mlp", "aiff", "caf", "au", "amr", "ape", "wv", "tta", "tak", "mpc", "mpc8", "voc", "dsf"),
    *("oma", "qoa", "gif", "apng", "webp_anim", "jpegxl_anim", "ico"),
    *(
        f"{picture}_pipe"
        for picture in (
            *("bmp", "cri", "dds", "dpx", "exr", "gif", "hdr", "j2k", "jpeg", "jpegls", "jpegxl"),
            *("pam", "pbm", "pcx", "pgm", "png", "ppm", "psd", "qoi", "sgi", "tiff", "webp", "xbm"),
        )
    ),
)
_PLAYLIST = re.compile(
    rb"\A(\xef\xbb\xbf)?\s*(ffconcat version|#EXTM3U|\[playlist\]|v=0\s)"
    rb"|<(\w+:)?(MPD|smil|asx|playlist|CompositionPlaylist|AssetMap)\b",
    re.IGNORECASE,
)
_DRAWING = re.compile(rb"<svg\b", re.IGNORECASE)
_LOOKED_AT_BYTES = 4096


def other_file_error(path: Path, complaints: Sequence[str]) -> MediaError | None:
    """Return the error that says what a file is that is not read; None if it is damaged media.

    Args:
        path: The file.
        complaints: What ffmpeg said of it.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(_LOOKED_AT_BYTES)
    except OSError:
        return None  # whatever ffmpeg said of it will do
    if _PLAYLIST.search(head):
        return MediaError(
            f"{path}: this is a list of other files (a playlist), which is not followed.",
            hint="Pass the file with the pictures itself.",
        )
    if _DRAWING.search(head):
        return MediaError(
            f"{path}: this is a drawing (SVG), not a video.", hint="Export it as a PNG picture."
        )
    if _is_text(head):
        return MediaError(f"{path}: this is a text file, not a video.")
    if any("Format not on whitelist" in line for line in complaints):
        return MediaError(
            f"{path}: its format is not read as a video.",
            hint="Write it anew as an MP4 with a player or editor that reads it.",
        )
    return None


def _is_text(head: bytes) -> bool:
    try:
        # The last character may be cut in two.
        text = getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(character.isprintable() or character.isspace() for character in text)


# First bytes of pictures and others that people pass as pictures, and what they are called.
_PICTURES = (
    (
        re.compile(rb".{4}ftyp(hei[cxms]|hev[cx]|mif1|msf1)", re.DOTALL),
        "a HEIC picture",
    ),
    (re.compile(rb".{4}ftyp(avif|avis)", re.DOTALL), "an AVIF picture"),
    (re.compile(rb"\x00\x00\x00\x0cJXL |\xff\x0a"), "a JPEG XL picture"),
    (re.compile(rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51"), "a JPEG 2000 picture"),
    (
        re.compile(rb".{4}ftypcrx |FUJIFILMCCD-RAW|IIRO|IIRS|MMOR|IIU\x00", re.DOTALL),
        "a camera's RAW file",
    ),
    (re.compile(rb"8BPS"), "a Photoshop file"),
    (re.compile(rb"%PDF"), "a PDF"),
    (re.compile(rb"%!PS|\xc5\xd0\xd3\xc6"), "a PostScript file"),
    (re.compile(rb"v/1\x01"), "an OpenEXR picture"),
)
_VIDEOS = re.compile(
    rb".{4}ftyp|\x1a\x45\xdf\xa3|RIFF.{4}AVI |FLV|\x00\x00\x01\xba|OggS", re.DOTALL
)
_HOW_TO_CONVERT = {
    "a HEIC picture": "Export it as JPEG or PNG: phones and Macs do when it is shared as 'most "
    "compatible', elsewhere `heif-convert photo.heic photo.png`.",
}


def other_picture_error(path: Path, formats: Sequence[str]) -> MediaError:
    """Return the error that says what a file is that is not read as a still picture.

    Args:
        path: The file.
        formats: The formats that are read, by name.
    """
    with open(path, "rb") as file:
        head = file.read(_LOOKED_AT_BYTES)
    read = f"Read are {', '.join(formats[:-1])} and {formats[-1]}."
    what = next((name for signature, name in _PICTURES if signature.match(head)), None)
    if what is None and _DRAWING.search(head):
        what = "a drawing (SVG)"
    if what is not None:
        hint = _HOW_TO_CONVERT.get(what, "Export it as PNG or JPEG.")
        return MediaError(
            f"{path}: this is {what}, which cannot be read here.", hint=f"{hint} {read}"
        )
    if _VIDEOS.match(head):
        return MediaError(
            f"{path}: this is a video, not a still picture.", hint=f"Pass it with --video. {read}"
        )
    return MediaError(f"{path}: this is no picture in a format that is read.", hint=read)
