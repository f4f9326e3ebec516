"""Decode one image file to uint8 pixels of one size; errors are returned, not raised."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np

Resample = Literal["bilinear", "bicubic"]
SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".avif",
    ]
)


def read_image(path: Path | str | io.BytesIO, size: int, resample: Resample = "bilinear") -> np.ndarray | str:
    """uint8 (3,size,size), short side scaled to `size` and centre cropped; or the reason it failed.

    Gray, palette and 16-bit images become RGB, transparency becomes white, EXIF rotation is
    applied, of an animation the first frame is used. 'bilinear' may decode large files at reduced
    size; 'bicubic' reads every pixel and equals torchvision's Resize and CenterCrop to the byte.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            if resample == "bilinear":
                file.draft(None, (2 * size, 2 * size))  # JPEG: decode at a fraction where that leaves enough
            file.load()
            image = _rgb(ImageOps.exif_transpose(file))
        short = min(image.size)
        fitted = (size * image.width // short, size * image.height // short)
        if fitted != image.size and resample == "bicubic":
            image = image.resize(fitted, Image.Resampling.BICUBIC)
        elif fitted != image.size:
            image = image.resize(fitted, Image.Resampling.BILINEAR, reducing_gap=3.0)
        left, top = (round((side - size) / 2) for side in fitted)
        pixels = np.asarray(image.crop((left, top, left + size, top + size)))
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))
    except Exception as error:  # every decoder fails in its own ways; the file is what is wrong
        return (
            str(error).split("\n")[0].replace(repr(path), "it").replace(repr(str(path)), "it") or type(error).__name__
        )


def short_side(path: Path | str) -> int | None:
    """Pixels of the shorter side, from the header alone; None where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            return min(file.size)
    except Exception:  # as above
        return None


def _rgb(image: Any) -> Any:
    """Any mode of Pillow -> RGB."""
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """16-bit gray (0..65535), or floats in [0, 1] or 0..255 -> uint8."""
    if values.dtype.kind == "f":
        values = values * (255.0 if values.max(initial=0.0) <= 1.0 else 1.0)
    else:
        values = values.astype(np.float64) / 257.0
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
