"""Cut the photographs that ship with derainzoo from the Debian package lomiri-wallpapers-16.04, and write their manifest.

    apt-get download lomiri-wallpapers-16.04 && dpkg -x lomiri-wallpapers-16.04_*.deb wallpapers
    python tools/make_backgrounds.py wallpapers/usr/share/backgrounds

Only photographs under CC0-1.0 or CC-BY-4.0 are used; authors and licences are those of the package's copyright file.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import cv2

TARGET = Path(__file__).parents[1] / "src/derainzoo/data/backgrounds"
SIZE = (480, 320)
QUALITY = 95


class Photograph(NamedTuple):
    """One source file; the crops are (zoom, x, y): windows of 3:2, `zoom` times smaller than the largest, and their centre."""

    file: str
    author: str
    licence: str
    split: str
    crops: list[tuple[float, float, float]]


AITZOL = "Aitzol Berasategi"
TREVOR = 'Trevor "Freespace"'
PHOTOGRAPHS = {
    "brook": Photograph(
        "life_by_Aitzol_Berasategi.jpg",
        AITZOL,
        "CC-BY-4.0",
        "train",
        [(1, 0.5, 0.5), (2.2, 0.25, 0.25), (2.2, 0.78, 0.3), (2.2, 0.25, 0.75), (2.2, 0.75, 0.75)],
    ),
    "dandelions": Photograph(
        "seeding_by_Clements_Engelhardt.jpg",
        "Clemens Engelhardt",
        "CC0-1.0",
        "train",
        [(1, 0.45, 0.5), (2.5, 0.3, 0.3), (1.6, 0.35, 0.6)],
    ),
    "evening": Photograph(
        "sunset_by_Aitzol_Berasategi.jpg",
        AITZOL,
        "CC-BY-4.0",
        "train",
        [(1, 0.5, 0.5), (2.2, 0.3, 0.75), (2.2, 0.76, 0.72), (2.5, 0.6, 0.4)],
    ),
    "fig": Photograph(
        "Picture_0B_by_freespace.jpg", TREVOR, "CC-BY-4.0", "train", [(1, 0.5, 0.5), (2.2, 0.25, 0.75), (2.2, 0.52, 0.45)]
    ),
    "brushes": Photograph(
        "Picture_1A_by_freespace.jpg",
        TREVOR,
        "CC-BY-4.0",
        "train",
        [(1, 0.5, 0.4), (1.8, 0.28, 0.3), (1.8, 0.4, 0.75), (1.8, 0.7, 0.6)],
    ),
    "room": Photograph(
        "Wine_by_Jakkub_Mede.jpg",
        "Jakub Mede",
        "CC-BY-4.0",
        "train",
        [(1, 0.5, 0.25), (1, 0.5, 0.68), (2, 0.6, 0.35), (2, 0.35, 0.6)],
    ),
    "autumn": Photograph(
        "aitzgorri_by_Aitzol_Berasategi.jpg", AITZOL, "CC-BY-4.0", "val", [(1, 0.5, 0.5), (2, 0.25, 0.6), (2.5, 0.75, 0.5)]
    ),
    "dogs": Photograph(
        "friends_by_Aitzol_Berasategi.jpg", AITZOL, "CC-BY-4.0", "test", [(1, 0.5, 0.4), (1.8, 0.3, 0.42), (1.8, 0.7, 0.75)]
    ),
    "mountains": Photograph(
        "picosdeeuropa_by_Aitzol_Berasategi.jpg",
        AITZOL,
        "CC-BY-4.0",
        "test",
        [(1, 0.5, 0.5), (2.2, 0.72, 0.4), (2.2, 0.25, 0.75)],
    ),
}


def main(folder: Path) -> None:
    """Write every crop and the manifest into the package."""
    files = []
    for name, photograph in PHOTOGRAPHS.items():
        picture = cv2.imread(str(folder / photograph.file))
        if picture is None:
            raise SystemExit(
                f"expected the photograph {folder / photograph.file}; unpack the package first (see the head of this file)"
            )
        height, width = picture.shape[:2]
        largest = min(width, height * SIZE[0] / SIZE[1])
        for number, (zoom, x, y) in enumerate(photograph.crops):
            w, h = round(largest / zoom), round(largest / zoom * SIZE[1] / SIZE[0])
            left = min(max(0, round(x * width - w / 2)), width - w)
            top = min(max(0, round(y * height - h / 2)), height - h)
            crop = cv2.resize(picture[top : top + h, left : left + w], SIZE, interpolation=cv2.INTER_AREA)
            data = cv2.imencode(".webp", crop, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1].tobytes()
            file = f"{name}-{number}.webp"
            (TARGET / file).write_bytes(data)
            files.append(
                {
                    "file": file,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "bytes": len(data),
                    "width": SIZE[0],
                    "height": SIZE[1],
                    "photograph": name,
                    "split": photograph.split,
                    "author": photograph.author,
                    "year": 2018,
                    "licence": photograph.licence,
                    "source": f"Debian package lomiri-wallpapers-16.04, {photograph.file} ({width} x {height})",
                    "done": f"cropped to {w} x {h} at ({left}, {top}), scaled by area to {SIZE[0]} x {SIZE[1]}, WebP {QUALITY}",
                }
            )
    (TARGET / "manifest.json").write_text(json.dumps(files, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{len(files)} pictures, {sum(f['bytes'] for f in files) / 1e6:.2f} MB, in {TARGET}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the package's folder of wallpapers")
    main(parser.parse_args().folder)
