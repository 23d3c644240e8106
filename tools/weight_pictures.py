"""Draw what the weights that ship do to three kinds of rain, for their cards: docs/images/NAME.webp. From a checkout:

    python tools/weight_pictures.py [NAME ...]

The photographs are test pictures of the package, the rain is synthetic: thin streaks as in Rain100L, heavy rain with a veil,
and dense streaks in five directions as in Rain100H. Crops are shown; decibels (protocol y8) are those of the whole picture.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import derainzoo
from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.synthetic import BACKGROUNDS
from derainzoo.images import read_image
from derainzoo.metrics import measure

TARGET = Path(__file__).parents[1] / "docs/images"
RAIN = {"rain100l": "dogs-0", "heavy": "mountains-0", "rain100h": "mountains-2"}
CROP = (270, 200)
MARGIN, CAPTION = 4, 16


def main() -> None:
    """One picture for every name."""
    for name in sys.argv[1:] or derainzoo.list_models(pretrained=True):
        rows = []
        for preset, photograph in RAIN.items():
            clean = read_image(BACKGROUNDS / f"{photograph}.webp")
            rainy = RainSynthesiser(preset)(clean, np.random.default_rng(7))
            restored = derainzoo.derain(rainy, weights=name)
            rows.append([(f"{preset}: {quality(rainy, clean)}", rainy), (quality(restored, clean), restored), ("clean", clean)])
        sheet(rows).save(TARGET / f"{name}.webp", quality=80, method=6)
        print(TARGET / f"{name}.webp", [caption for row in rows for caption, _ in row])


def quality(picture: np.ndarray, clean: np.ndarray) -> str:
    """Decibels and similarity, to be read by people."""
    found = measure("y8", picture, clean)
    return f"{found['psnr_y8']:.1f} dB, {found['ssim_y8']:.3f}"


def sheet(rows: list[list[tuple[str, np.ndarray]]]) -> Image.Image:
    """Crops of the middle, a caption above each."""
    (w, h), below = CROP, CROP[1] + CAPTION + MARGIN
    canvas = Image.new("RGB", (len(rows[0]) * (w + MARGIN) - MARGIN, len(rows) * below - MARGIN), "white")
    draw = ImageDraw.Draw(canvas)
    for i, row in enumerate(rows):
        for j, (caption, picture) in enumerate(row):
            top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
            x, y = j * (w + MARGIN), i * below
            draw.text((x + 2, y + 2), caption, "black")
            canvas.paste(Image.fromarray(picture[top : top + h, left : left + w]), (x, y + CAPTION))
    return canvas


if __name__ == "__main__":
    main()
