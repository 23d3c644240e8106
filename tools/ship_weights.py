"""Put trained weights into the package: 16 bits a number, an entry in the manifest. From a checkout:

    python tools/ship_weights.py runs/train/.../checkpoints/last.ckpt elf_lw.rain100l facts.json [--default]

`facts.json` tells what the file cannot: trained_on (sets and splits, as the catalog calls them), division (seed, val_images
and val of a run that held pictures of a set out, so that a benchmark knows them), data (that for people), validated_on,
budget, hardware, recipe, metrics (set -> name -> value), licence, limits. Metrics are measured by `derainzoo evaluate
weights=last.ckpt ...`; what 16 bits cost is measured here, as the largest difference of outputs on a photograph of the package.
"""

import argparse
import hashlib
import json
import subprocess
from pathlib import Path

import torch

from derainzoo.data.synthetic import embedded_backgrounds
from derainzoo.files import write_text
from derainzoo.images import read_image
from derainzoo.models.checkpoints import open_weights, save_weights
from derainzoo.models.pretrained import FOLDER

NEEDED = ("trained_on", "data", "validated_on", "budget", "hardware", "recipe", "metrics", "licence", "limits")


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
    stated = {key: facts[key] for key in ("trained_on", "division", "data", "licence", "limits") if key in facts}
    save_weights(path, opened.net, opened.name, opened.arguments, half=True, **stated)

    picture = torch.from_numpy(read_image(embedded_backgrounds("val")[0])).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        cost = (opened.net(picture) - open_weights(path).net(picture)).abs().max().item()
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    manifest = json.loads((FOLDER / "manifest.json").read_text())
    manifest["weights"][options.name] = {
        "model": opened.name,
        "arguments": opened.arguments,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "bytes": path.stat().st_size,
        "precision": f"16 bits a number; changes outputs by at most {cost:.1e} of the range",
        "revision": facts.pop("revision", revision),
        **facts,
    }
    if options.default:
        manifest["default"] = options.name
    write_text(FOLDER / "manifest.json", json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB, 16 bits change outputs by at most {cost:.1e}")


if __name__ == "__main__":
    main()
