"""What derained pictures are worth to another network: a detector or segmenter judged on rainy, derained and clean ones.

A pretty picture may still mislead a machine. The network that judges is any function that returns a module, or one of
torchvision's; mean average precision and mean intersection over union are torchmetrics'.
"""

import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassJaccardIndex

from derainzoo.bench.contest import Contestant
from derainzoo.config import plain
from derainzoo.data.catalog import find_pairs
from derainzoo.data.layouts import Pair, read_pair
from derainzoo.errors import DerainzooError
from derainzoo.inference.predictor import Predictor, choose_device

_KINDS = {"segment": ".png", "detect": ".json"}
_IMAGENET = (
    (0.485, 0.456, 0.406),
    (0.229, 0.224, 0.225),
)  # what torchvision's segmenters were trained with; detectors do it inside


def judge(contestants: Sequence[Contestant], settings: DictConfig, device: str) -> dict[str, Any]:
    """Rows of the judging network's metrics on the rainy pictures, what each network makes of them, and the clean ones."""
    kind, pairs = check(settings)
    network = load_judge(settings, kind)
    where = {"gpu": "cuda"}.get(device, device)
    restoring = [(c.label, Predictor(c.opened.net, where)) for c in contestants]
    shown: list[tuple[str, Predictor | None]] = [("rainy", None), *restoring, ("clean", None)]
    rows = []
    network.eval().to(place := choose_device(where))
    for label, predictor in shown:
        metric = _metric(kind, settings).to(place)
        for picture, truth in _pictures(pairs, settings.root, kind, clean=label == "clean"):
            image = predictor.restore(picture[None])[0] if predictor else picture
            with torch.inference_mode():
                _update(metric, kind, network, image.to(place).float() / 255, truth, settings)
        rows.append({"pictures": label, **_values(metric, kind)})
    measured = "mIoU" if kind == "segment" else "mAP"
    note = f"{settings.network} on {len(pairs)} pictures: {measured}, higher is better."
    return {"note": note, "metrics": [name for name in rows[0] if name != "pictures"], "rows": rows}


def check(settings: DictConfig) -> tuple[str, list[Pair]]:
    """Whether all is there that judging needs, before anything is measured: its kind and the pictures."""
    prefix = str(settings.network).partition(":")[0]
    kind = settings.kind or (prefix if prefix in _KINDS else None)
    if kind not in _KINDS:
        raise DerainzooError("downstream.kind: segment or detect expected; only segment:NAME and detect:NAME say it themselves")
    if settings.root is None:
        raise DerainzooError("downstream.root: a folder with rainy/, clean/ and labels/ is needed")
    if kind == "segment" and not settings.classes:
        raise DerainzooError("downstream.classes: the number of classes, background included, is needed for a segmenter")
    if kind == "detect":
        _average_precision()
    pairs = find_pairs("folder", "all", settings.root)
    for pair in pairs:
        file = _label_file(settings.root, pair, kind)
        if pair.clean is None or not file.exists():
            raise DerainzooError(f"downstream: {pair.name} has no {'clean picture' if pair.clean is None else file}")
    return kind, pairs


def load_judge(settings: DictConfig, kind: str) -> nn.Module:
    """The network that judges, with its weights."""
    prefix, _, name = str(settings.network).partition(":")
    arguments = plain(settings.arguments) or {}
    if prefix in _KINDS:
        try:
            from torchvision.models import get_model
        except ImportError:
            raise DerainzooError(f"downstream.network={settings.network} needs torchvision: pip install torchvision") from None
        defaults = {"weights": None, "weights_backbone": None, "num_classes": settings.classes}
        build: Callable[..., Any] = lambda **given: get_model(name, **{**defaults, **given})  # noqa: E731
    else:
        try:
            build = getattr(importlib.import_module(prefix), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise DerainzooError(
                f"downstream.network={settings.network}: package.module:function expected, or segment:NAME or detect:NAME of "
                f"torchvision ({error})"
            ) from None
    try:
        network = build(**arguments)
    except (TypeError, ValueError) as error:
        raise DerainzooError(f"downstream.network={settings.network} cannot be built: {error}") from None
    if not isinstance(network, nn.Module):
        raise DerainzooError(f"downstream.network={settings.network} returned a {type(network).__name__}, not a torch module")
    if settings.weights:
        try:
            network.load_state_dict(torch.load(settings.weights, map_location="cpu", weights_only=True))
        except (OSError, RuntimeError) as error:
            raise DerainzooError(f"downstream.weights={settings.weights}: {str(error).splitlines()[0]}") from None
    return network


def _label_file(root: str, pair: Pair, kind: str) -> Path:
    return Path(root).expanduser() / "labels" / f"{pair.rainy.stem}{_KINDS[kind]}"


def _pictures(pairs: Sequence[Pair], root: str, kind: str, clean: bool) -> Iterator[tuple[Tensor, Any]]:
    """Pictures `(3, H, W)` uint8 and what is to be found in them."""
    for pair in pairs:
        rainy, target = read_pair(pair)
        pixels = target if clean and target is not None else rainy
        file = _label_file(root, pair, kind)
        if kind == "segment":
            with Image.open(file) as mask:  # not read_image: the numbers of a palette are the classes
                truth: Any = torch.from_numpy(np.array(mask)).long()
        else:
            said = json.loads(file.read_text(encoding="utf-8"))
            truth = {
                "boxes": torch.tensor(said["boxes"], dtype=torch.float32).reshape(-1, 4),
                "labels": torch.tensor(said["labels"], dtype=torch.int64),
            }
        if pixels.dtype == np.uint16:
            pixels = (pixels / 257).round().astype(np.uint8)
        yield torch.from_numpy(pixels.transpose(2, 0, 1).copy()), truth


def _average_precision() -> type[Metric]:
    """torchmetrics' mean average precision, which computes with the official COCO code."""
    try:
        import pycocotools  # noqa: F401
        from torchmetrics.detection import MeanAveragePrecision
    except ImportError:
        raise DerainzooError(
            "mean average precision needs torchvision and pycocotools: pip install 'derainzoo[detect]'"
        ) from None
    return MeanAveragePrecision


def _metric(kind: str, settings: DictConfig) -> Metric:
    if kind == "detect":
        return _average_precision()()
    # over all pixels of all pictures together, as mIoU is customarily reported
    return MulticlassJaccardIndex(settings.classes, ignore_index=settings.ignore)


def _update(metric: Metric, kind: str, network: nn.Module, image: Tensor, truth: Any, settings: DictConfig) -> None:
    if kind == "detect":
        found = network([image])
        metric.update(
            [{k: found[0][k] for k in ("boxes", "scores", "labels")}], [{k: v.to(image.device) for k, v in truth.items()}]
        )
        return
    if str(settings.network).startswith("segment:"):
        mean, std = (torch.tensor(v, device=image.device).view(3, 1, 1) for v in _IMAGENET)
        image = (image - mean) / std
    scores = network(image[None])
    scores = scores["out"] if isinstance(scores, dict) else scores
    if scores.shape[-2:] != truth.shape or scores.shape[1] != settings.classes:
        raise DerainzooError(
            f"the segmenter must return ({settings.classes}, {truth.shape[0]}, {truth.shape[1]}) scores for such a picture, "
            f"found {tuple(scores.shape[1:])}"
        )
    metric.update(scores.argmax(1), truth[None].to(image.device))


def _values(metric: Metric, kind: str) -> dict[str, float]:
    found = metric.compute()
    if kind == "segment":
        return {"mIoU": float(found)}
    return {"mAP": float(found["map"]), "mAP at 0.5": float(found["map_50"])}
