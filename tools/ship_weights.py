"""Put trained weights into the package: 16 bits a number, an entry in the manifest. From a checkout:

    python tools/ship_weights.py runs/train/.../checkpoints/last.ckpt elf_lw.rain100l facts.json [--default]

`facts.json` tells what the file cannot: trained_on (sets and splits, as the catalog calls them), division (seed, val_images
and val of a run that held pictures of a set out, so that a benchmark knows them), seen (split -> how many of its scenes came
into training by another way, for the same purpose), data (that for people), validated_on, budget, hardware, recipe, metrics
(set -> name -> value), licence, limits. Metrics are measured by `derainzoo evaluate weights=last.ckpt ...`; what 16 bits cost
is measured here, on photographs of the package in synthetic rain.
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from derainzoo.data.rain import RainSynthesiser
from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.files import write_text
from derainzoo.images import read_image
from derainzoo.metrics import measure
from derainzoo.models.checkpoints import open_weights, save_weights
from derainzoo.models.pretrained import FOLDER

NEEDED = ("trained_on", "data", "validated_on", "budget", "hardware", "recipe", "metrics", "licence", "limits")
ALLOWED = 0.01
"""Decibels that 16 bits a number may cost."""


def main() -> None:
    """Write the file, then the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("name", help="NETWORK.WHAT_FOR")
    parser.add_argument("facts", type=Path)
    parser.add_argument("--default", action="store_true", help="what `derainzoo predict` takes when told nothing")
    options = parser.parse_args()
    facts = json.loads(options.facts.read_text())
    if lacking := [fact for fact in NEEDED if not facts.get(fact)]:
        parser.error(f"{options.facts} does not say: {', '.join(lacking)}")
    opened = open_weights(options.checkpoint)
    if opened.name != options.name.partition(".")[0]:
        parser.error(f"{options.checkpoint} holds a network {opened.name}; call it {opened.name}.WHAT_FOR")
    path = FOLDER / f"{options.name}.safetensors"
    stated = {key: facts[key] for key in ("trained_on", "division", "seen", "data", "licence", "limits") if key in facts}
    with TemporaryDirectory() as folder:  # what ships stays as it is until its successor has passed
        trial = Path(folder) / path.name
        save_weights(trial, opened.net, opened.name, opened.arguments, half=True, **stated)
        cost, change = precision_cost(opened.net, open_weights(trial).net)
        if cost >= ALLOWED:
            parser.error(
                f"16 bits a number cost {cost:.4f} dB, expected less than {ALLOWED}; train on, or ship them in 32 bits"
            )
        path.write_bytes(trial.read_bytes())
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    manifest["weights"][options.name] = {
        "model": opened.name,
        "arguments": opened.arguments,
        "parameters": sum(p.numel() for p in opened.net.parameters()),
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "precision": f"16 bits a number: cost {cost:.4f} dB (y8, synthetic rain), change outputs by at most {change:.1e}",
        "revision": facts.pop("revision", revision),
        **facts,
    }
    if options.default:
        manifest["default"] = options.name
    write_text(FOLDER / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, 16 bits cost {cost:.4f} dB and change outputs by at most {change:.1e}")


@torch.inference_mode()
def precision_cost(full: torch.nn.Module, half: torch.nn.Module) -> tuple[float, float]:
    """Decibels lost (y8, mean over photographs of the package in synthetic rain), and the largest change of an output."""
    lost, change = [], 0.0
    for path in embedded_backgrounds("test"):
        clean = read_image(path)
        rainy = RainSynthesiser("any")(clean, np.random.default_rng(0))
        picture = torch.from_numpy(rainy).permute(2, 0, 1)[None].float() / 255
        outputs = [net(picture) for net in (full, half)]
        change = max(change, (outputs[0] - outputs[1]).abs().max().item())
        target = torch.from_numpy(clean).permute(2, 0, 1)[None]
        values = [measure("y8", y, target)["psnr_y8"] for y in outputs]
        lost.append(values[0] - values[1])
    return sum(lost) / len(lost), change


if __name__ == "__main__":
    main()
