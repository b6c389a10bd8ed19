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
    """Draw the image on the left, and a gray copy with masks, boxes and names on the right."""
    plain = Image.fromarray(image).convert("RGB")
    width, height = plain.width * scale, plain.height * scale
    original = plain.resize((width, height), Image.Resampling.LANCZOS)
    overlay = np.asarray(original.convert("L").convert("RGB")) * 0.45
    for index, label in enumerate(labels):
        mask = Image.fromarray(masks[:, :, index]).resize((width, height), Image.Resampling.NEAREST)
        overlay[np.asarray(mask)] *= 0.4
        overlay[np.asarray(mask)] += 0.75 * np.array(_COLOURS[label % len(_COLOURS)])
    panel = Image.fromarray(overlay.clip(0, 255).astype("uint8"))
    pen = ImageDraw.Draw(panel)
    font = ImageFont.load_default(8 * scale)
    for (x, y, w, h), label in zip(boxes * scale, labels, strict=True):
        colour = _COLOURS[label % len(_COLOURS)]
        pen.rectangle((x, y, x + w, y + h), outline=colour, width=scale)
        _tag(pen, (x, y), class_names[label], colour, font)
    return _page(original, panel, class_names, labels, title)


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
    original: Image.Image,
    overlay: Image.Image,
    class_names: list[str],
    labels: np.ndarray,
    title: str,
) -> Image.Image:
    """Compose a page of both panels, with a title above and a legend below."""
    font = ImageFont.load_default(20)
    page = Image.new(
        "RGB",
        (original.width + overlay.width + 3 * _MARGIN, original.height + 4 * _MARGIN + 50),
        _PAPER,
    )
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN // 2), title, fill=_INK, font=font)
    top = _MARGIN + 26
    page.paste(original, (_MARGIN, top))
    page.paste(overlay, (2 * _MARGIN + original.width, top))
    x, y = _MARGIN, top + original.height + _MARGIN
    for label, name in enumerate(class_names):
        text = f"{name}: {int((labels == label).sum())}"
        pen.rectangle((x, y, x + 24, y + 24), fill=_COLOURS[label % len(_COLOURS)])
        pen.text((x + 34, y - 2), text, fill=_INK, font=font)
        x += int(pen.textlength(text, font=font)) + 70
    return page
