"""Remove rain from a picture with an exported network. Needs onnxruntime, pillow and numpy; neither torch nor derainzoo.

derainzoo export best.ckpt net.onnx
python onnx_without_torch.py net.onnx photo.jpg dry.png
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(network: str, photo: str, result: str) -> None:
    """Read a picture, run the network, write what it gives."""
    session = onnxruntime.InferenceSession(network, providers=onnxruntime.get_available_providers())
    card = json.loads(session.get_modelmeta().custom_metadata_map["derainzoo"])
    print(f"{card['name']}, weights {card['source']}, licence {card['licence']}")
    picture = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
    image = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 255  # (1, 3, height, width) in [0, 1]
    (restored,) = session.run(None, {"image": image})
    pixels = np.round(255 * restored[0].clip(0, 1)).astype(np.uint8)
    Image.fromarray(pixels.transpose(1, 2, 0)).save(result)


if __name__ == "__main__":
    main(*sys.argv[1:])
