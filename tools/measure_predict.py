"""What docs/predict.md says about speed, memory and tiles. Every case runs in a process of its own, on one thread.

    PYTHONPATH=src python tools/measure_predict.py photo elf_lw 12     megapixels
    PYTHONPATH=src python tools/measure_predict.py video elf_lw 3      frames of 1080p
    PYTHONPATH=src python tools/measure_predict.py folder elf_lw 100   pictures of 480 x 320
    PYTHONPATH=src python tools/measure_predict.py folder device 100   the same with a network that leaves the processor free
    PYTHONPATH=src python tools/measure_predict.py tiles elf_lw 320    pixels a side; tiles of 192
    ... photo nafnet.anyrain 12                                        weights that ship, or a file of weights

Seconds are of the processor (all threads together), so that other programs do not count, but for `folder`, where what overlaps
is the question: there both ways take turns, and the clock counts. A network has random weights, which cost the same.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROUNDS = 4
"""Turns that the two ways of `folder` take."""


def predictor(network: str, tile: Any = "auto") -> Any:
    """A predictor on the processor, for a name, a file of weights, or `device`."""
    import torch
    from torch import nn

    from derainzoo import create_model, list_models
    from derainzoo.inference.predictor import Predictor, load_network

    class Device(nn.Module):
        """As a graphics card is to the processor: done in 15 ms, in which others can work."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(0.015)
            return x

    torch.manual_seed(0)
    if network == "device":
        return Predictor(Device(), "cpu", tile=None)
    net = create_model(network).eval() if network in list_models() else load_network(weights=network)
    return Predictor(net, "cpu", tile=tile)


def photograph(height: int, width: int) -> Any:
    """A photograph that ships, enlarged: decoders and encoders need something to do."""
    import cv2

    from derainzoo.data.synthetic import BACKGROUNDS
    from derainzoo.images import read_image

    picture = read_image(BACKGROUNDS / "mountains-0.webp")
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


def photo(network: str, megapixels: float, folder: Path) -> dict[str, Any]:
    """Seconds from file to file, and memory."""
    from derainzoo.inference.photo import Photo, read_photo, write_photo

    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width = round(height * 4 / 3)
    write_photo(folder / "wet.jpg", Photo(photograph(height, width), "JPEG"))
    restore = predictor(network)
    loaded = peak()
    began = time.process_time()
    wet = read_photo(folder / "wet.jpg")
    write_photo(folder / "dry.jpg", wet.with_upright(restore(wet.upright)))
    seconds = time.process_time() - began
    return {
        "size": [width, height],
        "tile": restore.tile_for(height, width),
        "seconds": seconds,
        "GiB": peak(),
        "loaded": loaded,
    }


def peak() -> float:
    """The process's largest resident set so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def video(network: str, frames: float, folder: Path) -> dict[str, Any]:
    """Seconds a frame, decoding and encoding included."""
    import av

    from derainzoo.inference.video import restore_video

    with av.open(str(folder / "wet.mp4"), "w") as file:
        stream = file.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        picture = av.VideoFrame.from_ndarray(photograph(1080, 1920), format="rgb24")
        for packet in [*(p for _ in range(int(frames)) for p in stream.encode(picture)), *stream.encode(None)]:
            file.mux(packet)
    restore = predictor(network)
    restore(photograph(64, 64))
    began, clock = time.process_time(), time.perf_counter()
    restore_video(folder / "wet.mp4", folder / "dry.mp4", restore)
    return {
        "seconds a frame": (time.process_time() - began) / frames,
        "by the clock": (time.perf_counter() - clock) / frames,
        "GiB": peak(),
    }


def folder(network: str, count: float, place: Path) -> dict[str, Any]:
    """`derainzoo predict` against the loop that one would write: read, restore, write, next."""
    from derainzoo.images import read_image, write_png
    from derainzoo.inference.inputs import find_jobs
    from derainzoo.inference.predict import Settings, work

    for i in range(int(count)):
        write_png(place / f"wet/{i}.png", photograph(320, 480))
    jobs = find_jobs([str(place / "wet")], place / "dry").jobs
    restore = predictor(network, None)
    restore(photograph(320, 480))

    def loop(part: list[Any]) -> None:
        for job in part:
            write_png(place / "loop" / job.source.name, restore(read_image(job.source)))

    def ours(part: list[Any]) -> None:
        work(part, restore, Settings())

    seconds = {loop: 0.0, ours: 0.0}
    for turn in range(ROUNDS):
        part = jobs[turn::ROUNDS]
        for way in (loop, ours) if turn % 2 else (ours, loop):
            began = time.perf_counter()
            way(part)
            seconds[way] += time.perf_counter() - began
    return {"loop": seconds[loop], "predict": seconds[ours], "ratio": seconds[loop] / seconds[ours]}


def tiles(network: str, side: float, place: Path) -> dict[str, Any]:
    """The difference between a picture in tiles and the same picture whole."""
    import torch

    from derainzoo.inference.tiler import OVERLAP, restore

    net = predictor(network, None).net
    image = torch.from_numpy(photograph(int(side), int(side))).permute(2, 0, 1)[None] / 255
    with torch.inference_mode():
        whole = net(image)
        tiled = restore(net, image, 192)
    error = (whole.clamp(0, 1) - tiled.clamp(0, 1)).double()
    changed = (whole.clamp(0, 1) - image).double().square().mean().sqrt() * 255
    return {
        "dB": -10 * error.square().mean().log10().item(),
        "largest difference": 255 * error.abs().max().item(),
        "overlap": OVERLAP,
        "the network itself changes": changed.item(),
    }


CASES = {"photo": photo, "video": video, "folder": folder, "tiles": tiles}


def main() -> None:
    """One case, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("network", help="a name, or a file of weights")
    parser.add_argument("amount", type=float)
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        sys.exit(
            subprocess.run([sys.executable, *sys.argv], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False).returncode
        )
    with tempfile.TemporaryDirectory() as place:
        print(json.dumps({**vars(arguments), **CASES[arguments.case](arguments.network, arguments.amount, Path(place))}))


if __name__ == "__main__":
    main()
