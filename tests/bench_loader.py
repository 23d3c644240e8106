"""How fast samples come: decoding whole files against cutting from the cache. `python -m tests.bench_loader`

Builds two small sets from the shipped photographs, PNG of 481 x 321 (as Rain200) and JPEG of 512 x 384 (as most of Rain13K),
and times the same loader on both stores, in turn, in one process, so that the ratio holds on a busy machine.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from derainzoo.data.datamodule import DerainDataModule
from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.stores import prepare
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.images import read_image


def make_set(folder: Path, size: tuple[int, int], extension: str, count: int) -> None:
    """`count` pairs of one size."""
    rain, pictures = RainSynthesiser("rain100l"), embedded_backgrounds("train")
    for i in range(count):
        clean = cv2.resize(read_image(pictures[i % len(pictures)]), size, interpolation=cv2.INTER_AREA)
        for kind, image in (("input", rain(clean, np.random.default_rng(i))), ("target", clean)):
            path = folder / "train" / kind / f"{i + 1}.{extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image[..., ::-1])


def rate(data: DerainDataModule) -> float:
    """Samples (rainy and clean) a second of processor time."""
    loader = data.train_dataloader()
    began = time.process_time()
    samples = sum(len(batch.names) for batch in loader)
    return samples / (time.process_time() - began)


def main() -> None:
    """Print a table."""
    print("| set | augment | decode, then crop | cache | ratio |\n|---|---|---|---|---|")
    for title, size, extension in (("481x321 PNG", (481, 321), "png"), ("512x384 JPEG", (512, 384), "jpg")):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_set(folder, size, extension, 60)
            settings = {"name": "folder", "root": name, "num_workers": 0, "patch_size": 128, "batch_size": 16, "steps": 40}
            first = DerainDataModule(**settings)
            list(prepare(*first.files_to_prepare(), folder / "cache"))
            for augment in ((), ("D4",)):
                files, cache = [], []
                for _ in range(3):
                    for store, rates in ((None, files), (str(folder / "cache"), cache)):
                        data = DerainDataModule(**settings, augment=augment, cache=store)
                        data.setup("fit")
                        rates.append(rate(data))
                a, b = sorted(files)[1], sorted(cache)[1]
                print(f"| {title} | {'D4' if augment else 'none'} | {a:.0f}/s | {b:.0f}/s | {b / a:.1f} |", flush=True)


if __name__ == "__main__":
    main()
