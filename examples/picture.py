"""Draw one sample of a lake: the image, and beside it its boxes and masks."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_COLOURS = (
    (232, 93, 80),
    (72, 149, 239),
    (249, 199, 79),
    (114, 196, 116),
    (186, 118, 214),
    (255, 140, 66),
    (67, 190, 190),
    (240, 120, 170),
)
_PAPER, _INK, _MARGIN = (250, 250, 250), (40, 44, 52), 24


def draw_sample(
    image: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    masks: np.ndarray,
    class_names: list[str],
    *,
    title: str = "",
    scale: int = 2,
) -> Image.Image:
    """Draw the image left; right the same in gray, with masks in colour, boxes and names."""
    plain = Image.fromarray(image).convert("RGB")
    width, height = plain.width * scale, plain.height * scale
    left = plain.resize((width, height), Image.Resampling.LANCZOS)
    right = np.asarray(left.convert("L").convert("RGB")) * 0.45
    for place, label in enumerate(labels):
        mask = Image.fromarray(masks[:, :, place]).resize((width, height), Image.Resampling.NEAREST)
        right[np.asarray(mask)] *= 0.4
        right[np.asarray(mask)] += 0.75 * np.array(_COLOURS[label % len(_COLOURS)])
    panel = Image.fromarray(right.clip(0, 255).astype("uint8"))
    pen = ImageDraw.Draw(panel)
    font = ImageFont.load_default(8 * scale)
    for (x, y, w, h), label in zip(boxes * scale, labels, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle((x, y, x + w, y + h), outline=colour, width=scale)
        _tag(pen, (x, y), class_names[label], colour, font)
    return _page(left, panel, class_names, labels, title)


def _tag(
    pen: ImageDraw.ImageDraw,
    corner: tuple[float, float],
    name: str,
    colour: tuple[int, ...],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = corner
    _, _, w, h = pen.textbbox((0, 0), name, font=font)
    top = y - h - 6 if y >= h + 6 else y
    pen.rectangle((x, top, x + w + 10, top + h + 6), fill=colour)
    pen.text((x + 5, top + 2), name, fill=_INK, font=font)


def _page(
    left: Image.Image, right: Image.Image, class_names: list[str], labels: np.ndarray, title: str
) -> Image.Image:
    """Put both panels on one page, with a title above and a legend below."""
    font = ImageFont.load_default(20)
    page = Image.new(
        "RGB", (left.width + right.width + 3 * _MARGIN, left.height + 4 * _MARGIN + 50), _PAPER
    )
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN // 2), title, fill=_INK, font=font)
    top = _MARGIN + 26
    page.paste(left, (_MARGIN, top))
    page.paste(right, (2 * _MARGIN + left.width, top))
    x, y = _MARGIN, top + left.height + _MARGIN
    for label, name in enumerate(class_names):
        text = f"{name}: {int((labels == label).sum())}"
        pen.rectangle((x, y, x + 24, y + 24), fill=_COLOURS[label % len(_COLOURS)])
        pen.text((x + 34, y - 2), text, fill=_INK, font=font)
        x += int(pen.textlength(text, font=font)) + 70
    return page
