"""Traces that are pictures, images and heatmaps, in an SVG."""

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..results import png

PICTURES = ("image", "heatmap")


def is_picture(trace: Any) -> bool:
    """True for a trace that `picture` draws: RGB pixels, or values with their own range and colours
    and no axes of their own.
    """
    if trace.type == "image":
        return trace.z is not None and trace.colormodel in (None, "rgb")
    if trace.type != "heatmap" or trace.x is not None or trace.y is not None:
        return False
    return all(v is not None for v in (trace.z, trace.colorscale, trace.zmin, trace.zmax))


def placed(trace: Mapping[str, Any]) -> Mapping[str, Any]:
    """A picture with its sides as x and y; other traces as they are."""
    if trace.get("type") not in PICTURES:
        return trace
    z = _values(trace["z"])
    return {**trace, "z": z, "x": [-0.5, z.shape[1] - 0.5], "y": [-0.5, z.shape[0] - 0.5]}


def picture(trace: Mapping[str, Any], x: Sequence[float], y: Sequence[float]) -> str:
    """A placed trace, an image (h, w, 3) or a heatmap (h, w) in its colours, as an SVG's <image>;
    x, y: where its first and its last side are, in the SVG's units.
    """
    z = trace["z"][:: 1 if y[0] < y[1] else -1]
    uri = png(z.astype(np.uint8) if trace["type"] == "image" else _coloured(z.astype(float), trace))
    box = f'x="{min(x):.1f}" y="{min(y):.1f}" width="{abs(x[1] - x[0]):.1f}" height="{abs(y[1] - y[0]):.1f}"'
    return f'<image {box} preserveAspectRatio="none" style="image-rendering:pixelated" href="{uri}"/>'


def _values(z: Any) -> np.ndarray:
    """As plotly's JSON has them: nested lists, or bytes with a shape."""
    if not isinstance(z, Mapping):
        return np.asarray(z)
    shape = [int(n) for n in str(z["shape"]).split(",")]
    return np.frombuffer(base64.b64decode(z["bdata"]), z["dtype"]).reshape(shape)


def _coloured(z: np.ndarray, trace: Mapping[str, Any]) -> np.ndarray:
    """Values (h, w) as RGBA (h, w, 4), by the trace's colour scale."""
    at = ((z - trace["zmin"]) / ((trace["zmax"] - trace["zmin"]) or 1)).clip(0, 1)
    stops, colours = zip(*trace["colorscale"], strict=True)
    channels = np.array([_rgba(colour) for colour in colours]).T
    return np.stack([np.interp(at, stops, channel) for channel in channels], -1).round().astype(np.uint8)


def _rgba(colour: str) -> tuple[float, ...]:
    """'#3467d2' or 'rgba(52,103,210,0.5)' as four numbers from 0 to 255."""
    if colour.startswith("#"):
        return (*bytes.fromhex(colour[1:]), 255.0)
    red, green, blue, *alpha = map(float, re.findall(r"[\d.]+", colour))
    return red, green, blue, 255 * (alpha[0] if alpha else 1.0)
