"""A network and how it is run: the way of pixels from a picture in memory to the restored one."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from derainzoo.errors import DerainzooError, unknown_name
from derainzoo.inference.memory import HEADROOM, bytes_per_pixel, free_memory, largest_tile
from derainzoo.inference.tiler import OVERLAP, bands
from derainzoo.models import pretrained
from derainzoo.models.checkpoints import load_model, open_weights
from derainzoo.models.registry import list_models

log = logging.getLogger(__name__)

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Half precisions are autocast, as in training: the weights stay float32."""

SMALLEST_TILE = 64
"""When memory runs out even with this, a smaller tile would not help."""

_LARGEST = {torch.uint8: 255, torch.uint16: 65535}  # what stands for 1; floats are taken as they are
_LUMA = (0.299, 0.587, 0.114)  # add up to one: what is grey stays that grey


def load_network(
    name: str | None = None,
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    allow_random: bool = False,
) -> nn.Module:
    """The network in `weights` (with a `name` it must be that one), or the named one with the weights that come with it.

    A file of weights, or the name of some that ship, may stand for a network's name. Other than `load_model` it refuses random
    weights unless they are allowed: what they make of a picture is noise.
    """
    if name is not None and name not in list_models():
        if weights is not None or not pretrained.locate(name).is_file():
            raise unknown_name("network", name, [*list_models(), *pretrained.shipped()], "Nor is there a file of this name.")
        name, weights = None, name
    weights = weights or pretrained.default(name, arguments)
    if weights is not None:
        return open_weights(weights, name=name, arguments=arguments).net
    if name is None or not allow_random:
        there = ", ".join(pretrained.shipped()) or "none"
        whom = f" for {name}" if name else ""
        raise DerainzooError(
            f"no weights{whom}: give a file by weights=FILE, or a name of those that come with derainzoo ({there}). "
            f"`derainzoo train model={name or 'NAME'}` makes one (checkpoints/*.ckpt in the run's folder); the files that "
            "authors of networks publish do as well (`derainzoo convert` turns them into .safetensors). To try out the command "
            "without any: model=NAME allow_random=true."
        )
    with warnings.catch_warnings(record=True) as caught:  # on a terminal the place in the code says nothing
        net = load_model(name, arguments=arguments)
    for warning in caught:
        log.warning("%s", warning.message)
    return net


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto`: a GPU if there is one; anything else must exist."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        raise DerainzooError(f"device={device} is not to be had here: {str(error).splitlines()[0]}; try auto or cpu") from None
    return chosen


class Predictor:
    """Restores pictures with one network. `restore` takes tensors, a call takes whatever `kinds.unpack` knows.

    Args:
        net: is changed: it goes to the device, into evaluation mode and into the channels_last layout.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: fp32; bf16 or fp16 by autocast, which is for GPUs: CPUs get slower by it.
        tile: largest side of a tile in pixels; auto: as large as free memory allows; None: pictures whole.
        overlap: pixels that neighbouring tiles share.
        batch: tiles that go through the network together.
    """

    def __init__(
        self,
        net: nn.Module,
        device: str | torch.device = "auto",
        precision: str = "fp32",
        tile: int | Literal["auto"] | None = "auto",
        overlap: int = OVERLAP,
        batch: int = 1,
    ) -> None:
        if precision not in PRECISIONS:
            raise DerainzooError(f"precision must be fp32, bf16 or fp16, not {precision!r}")
        if tile not in (None, "auto") and not (isinstance(tile, int) and tile >= 16):
            raise DerainzooError(f"tile must be auto, null (pictures whole) or a number of pixels from 16 up, not {tile!r}")
        if overlap < 0 or batch < 1:
            raise DerainzooError(f"overlap must be at least 0 and the batch of tiles at least 1, not {overlap} and {batch}")
        self.device = choose_device(device)
        self.net = net.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.precision, self.tile, self.overlap, self.batch = precision, tile, overlap, batch
        self._multiple = int(getattr(net, "multiple_of", 1))
        self._needed = 0.0  # bytes a pixel; counted when first asked for
        self._limit: int | None = None  # the tile that was left when memory ran out

    def __call__(self, image: Any) -> Any:
        """Restore a picture of any kind, and give back the same kind."""
        from derainzoo.inference.kinds import unpack

        images, pack = unpack(image)
        return pack(self.restore(images))

    def restore(self, images: Tensor) -> Tensor:
        """Restore `(B, C, H, W)`, to the same dtype on the same device.

        C is 3, or 1 for grey, and one more with an alpha channel, which is passed on. `uint8` and `uint16` use their whole
        range; floats are in [0, 1], and the result is cut off there.
        """
        _check(images)
        self.net.eval()  # whatever its owner has done to it since
        tile = self.tile_for(*images.shape[-2:])
        while True:
            try:
                return self._restore(images, tile)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            # not inside the handler, as the exception holds on to all that was computed
            tile = self._smaller(tile or max(images.shape[-2:]))

    def tile_for(self, height: int, width: int) -> int | None:
        """The tile for pictures of this size; None: whole."""
        tile = self.tile
        if tile == "auto":
            self._needed = self._needed or HEADROOM * bytes_per_pixel(self.net)
            tile = largest_tile(self._needed * self.batch, free_memory(self.device), height, width)
        return self._limit if tile is None or (self._limit and self._limit < tile) else tile

    def _smaller(self, tile: int) -> int:
        """Half the tile, for this picture and all that follow."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if tile <= SMALLEST_TILE:
            raise DerainzooError(
                f"the memory of {self.device} does not even suffice for tiles of {tile} pixels; end what else uses it, or try "
                "device=cpu, precision=bf16 or a lighter network"
            )
        self._limit = max(SMALLEST_TILE, tile // 2)
        log.warning("out of memory on %s with tiles of %d pixels: going on with %d", self.device, tile, self._limit)
        return self._limit

    def _restore(self, images: Tensor, tile: int | None) -> Tensor:
        colours = 1 if images.shape[1] < 3 else 3
        result = images.clone(memory_format=torch.preserve_format)  # the alpha channel is there already
        row = 0
        with torch.inference_mode():
            for band in bands(self._run, images[:, :colours], tile, self.overlap, self.batch, self._multiple):
                pixels = _to_pixels(band, images.dtype, grey=colours == 1)
                result[:, :colours, row : row + band.shape[-2]] = pixels.to(images.device)
                row += band.shape[-2]
        return result

    def _run(self, tiles: Tensor) -> Tensor:
        """The network, on pixels of any dtype that lie anywhere."""
        largest = _LARGEST.get(tiles.dtype, 1)
        if tiles.dtype != torch.uint8:
            tiles = tiles.float()  # before they travel: not every device knows uint16 or float64
        x = tiles.to(self.device).float() / largest
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, half := PRECISIONS[self.precision], enabled=half is not None):
            output: Tensor = self.net(x)
        if not torch.isfinite(output).all():
            cure = (
                "fp16 overflows in some networks: use bf16 or fp32" if self.precision == "fp16" else "are its weights damaged?"
            )
            raise DerainzooError(f"the network returned values that are no numbers; {cure}")
        return output


def _to_pixels(band: Tensor, dtype: torch.dtype, grey: bool) -> Tensor:
    """What a network returned, as pixels to keep."""
    pixels = band.float()
    if grey:
        pixels = (pixels * pixels.new_tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)
    pixels = pixels.clamp(0, 1)
    return (pixels * _LARGEST[dtype]).round().to(dtype) if dtype in _LARGEST else pixels.to(dtype)


def _check(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 2, 3, 4) or 0 in images.shape:
        raise DerainzooError(
            f"expected pictures of (B, C, H, W) with 1 to 4 channels and pixels in them, got {tuple(images.shape)}"
        )
    if images.dtype in _LARGEST:
        return
    if not images.dtype.is_floating_point:
        raise DerainzooError(f"expected pixels of uint8, uint16 or floats, got {str(images.dtype).removeprefix('torch.')}")
    low, high = (v.item() for v in images.aminmax())
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise DerainzooError(
            f"expected floats from 0 to 1, got {low:g} to {high:g}; divide by the largest value, or pass uint8"
        )


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is what a GPU or a CPU says when it has no more."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)  # the latter from CPUs
