"""Synthetic rain: streaks that are drawn drop by drop, the veil of the rain too far away to be seen as streaks, and the lens.

A picture of rain is an exposure of T seconds. A drop of diameter D at distance z falls v T meanwhile; the camera sees a streak
of length f v T / z and width f D / z, through which the background B still shines for most of the exposure (Garg and Nayar,
"Vision and Rain", 2007). Rain too far for streaks scatters light like fog (transmission t, airlight A). With S the sum of all
streaks, kappa the blend and L the light of a drop, the rainy picture is

    V = t B + (1 - t) A                       the background behind the veil
    O = clip(V + S (L - kappa V))             kappa = 1: streaks cover, as optics has it; kappa = 0: streaks add up

Data sets differ in kappa: Rain100/200 and Rain12 add streaks and clip, DDN and photographs cover. Distances follow the volume
that the camera sees, p(z) ~ z^2, hence many fine faint streaks and few large ones, without a choice of layers.

All chance comes from the generator in the caller's hand, and the streaks are drawn by numpy alone: the same generator state
gives the same bytes on any worker, whatever the number of threads. Lengths are in pixels of a picture of about 480 x 320;
`scale` says how many pixels of this picture one of those is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from derainzoo.errors import DerainzooError, unknown_name

Picture = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating]
Range = tuple[float, float]

MAX_SHEETS = 8
MAX_ANGLE = 75  # streaks are drawn row by row, so they must not lie flat
FWHM = 1.08  # of the profile (1 - d^2)^2
TURBULENCE = math.sqrt(6)  # farthest a streak leans from its sheet, in standard deviations of the triangular distribution


@dataclass(frozen=True)
class RainConfig:
    """From where the parameters of one storm are drawn: a range (low, high) each. The defaults are a plain medium rain.

    Each is drawn once a picture, uniformly unless said otherwise; what differs from drop to drop follows from it.
    """

    # --- how it falls: degrees from the vertical, positive leans like "\"
    wind: Range = (-25, 25)  # mean direction of a picture; a picture has one wind
    sheets: Range = (1, 2)  # directions in one picture: gusts at different distances (Rain100H and Rain200H have five)
    fan: Range = (0, 8)  # how far a sheet may lean from the wind
    jitter: Range = (0.5, 2.5)  # standard deviation of a streak within its sheet: turbulence

    # --- what one streak looks like: pixels of a picture of about 480 x 320, of the nearest streak
    scale: Range = (0.8, 1.25)  # pixels of this picture per reference pixel; drawn geometrically
    depth: Range = (1.5, 3.5)  # distance of the farthest streak / the nearest: the farthest is so much smaller
    length: Range = (35, 80)  # fall during the exposure
    thickness: Range = (2, 4)  # full width at half maximum
    defocus: Range = (0, 1.5)  # radius of the blur of the nearest streak: the camera is focused on the scene behind
    flicker: Range = (0, 0.6)  # bright and dark beads along a streak: the drop oscillates while it falls

    # --- how much: what grows from light to heavy rain
    density: Range = (4000, 9000)  # streaks per megapixel of a picture of reference scale; drawn geometrically
    opacity: Range = (0.4, 0.7)  # of the strongest streaks, in their middle
    veil: Range = (0.01, 0.05)  # 1 - t: the share of light that distant rain scatters away

    # --- light
    blend: Range = (0, 1)  # kappa above
    light: Range = (0.75, 1.0)  # brightness of a drop: it shows the sky and the scene as a fisheye lens does
    tint: Range = (0, 0.04)  # how far light and airlight are from grey
    airlight: Range = (0.6, 0.9)  # brightness of the veil

    # --- camera: nothing of it by default
    lens_drops: Range = (0, 0)  # drops on the glass per megapixel at reference scale
    lens_radius: Range = (6, 18)  # pixels at reference scale
    grain: Range = (0, 0)  # standard deviation of sensor noise, grey levels
    jpeg: Range = (0, 0)  # quality of a JPEG round trip; 0 is none

    def __post_init__(self) -> None:
        allowed = {
            "wind": (-MAX_ANGLE, MAX_ANGLE),
            "sheets": (1, MAX_SHEETS),
            "scale": (0.05, 50),
            "depth": (1, 100),
            "opacity": (0, 1),
            "veil": (0, 1),
            "blend": (0, 1),
            "flicker": (0, 1),
            "jpeg": (0, 100),
        }
        for field in fields(self):
            low, high = getattr(self, field.name)
            lowest, highest = allowed.get(field.name, (0, math.inf))
            if not lowest <= low <= high <= highest:
                raise DerainzooError(
                    f"rain: expected {field.name} as (low, high) between {lowest} and {highest}, found ({low}, {high})"
                )


# One kind of picture, three amounts of rain. Range by range these grow, so that `versions` is monotone.
_MEDIUM = RainConfig()
_ADDED = RainConfig(jitter=(0, 0.7), blend=(0, 0), light=(1, 1), tint=(0, 0), veil=(0, 0))

PRESETS: dict[str, RainConfig] = {
    "light": replace(_MEDIUM, density=(1500, 3500), opacity=(0.3, 0.6), veil=(0, 0.02)),
    "medium": _MEDIUM,
    "heavy": replace(_MEDIUM, density=(12000, 25000), opacity=(0.5, 0.8), veil=(0.05, 0.12)),
    # whatever rain a picture from elsewhere may have: the ranges span all that was measured on public sets
    "any": RainConfig(
        wind=(-40, 40),
        sheets=(1, 5),
        fan=(0, 15),
        jitter=(0, 3),
        scale=(0.7, 2.0),
        depth=(1.3, 4),
        length=(25, 100),
        thickness=(1.5, 5),
        defocus=(0, 2),
        flicker=(0, 0.8),
        density=(1500, 60000),
        opacity=(0.25, 0.9),
        veil=(0, 0.1),
        blend=(0, 1),
        light=(0.7, 1),
    ),
    # the look of two synthetic sets: white streaks added up and clipped, in one direction or in five
    "rain100l": replace(
        _ADDED,
        sheets=(1, 1),
        depth=(1.5, 3),
        length=(55, 130),
        thickness=(2.5, 5),
        density=(1300, 5600),
        opacity=(0.3, 0.7),
    ),
    "rain100h": replace(
        _ADDED,
        wind=(-10, 10),
        sheets=(5, 5),
        fan=(5, 15),
        depth=(1.2, 2),
        length=(50, 105),
        thickness=(2.5, 3.7),
        density=(24000, 48000),
        opacity=(0.3, 0.45),
    ),
}


class Storm(NamedTuple):
    """The parameters of one picture's rain, in its own pixels and grey levels."""

    wind: float
    sheets: int
    fan: float
    jitter: float
    depth: float
    length: float
    radius: float
    defocus: float
    flicker: float
    density: float  # streaks per pixel
    opacity: float
    veil: float
    blend: float
    light: Floats  # (3,)
    airlight: Floats  # (3,)
    lens_density: float  # drops on the glass per pixel
    lens_radius: float
    grain: float
    jpeg: int


class Layers(NamedTuple):
    """A rainy picture and what it was made of."""

    storm: Storm
    streaks: Floats  # S, (H, W), 0..1
    veiled: Floats  # V, (H, W, 3), grey levels
    rainy: Picture  # O, behind lens, grain and JPEG


class Streaks(NamedTuple):
    """What is drawn: one array entry a streak, lengths in pixels."""

    x: Floats  # of the middle
    y: Floats
    slope: Floats  # columns per row
    half: Floats  # rows from the middle to the end
    radius: Floats  # across the streak, from its axis to where it ends
    strength: Floats  # S in the middle
    beads: Floats  # periods of the flicker from end to end
    phase: Floats


class RainSynthesiser:
    """Rains on clean pictures.

    Args:
        config: ranges to draw from, or the name of a preset, or several (`any+rain100h`), one of which is drawn each time.
    """

    def __init__(self, config: RainConfig | str = "any") -> None:
        self.configs = [preset(name) for name in config.split("+")] if isinstance(config, str) else [config]

    def __call__(self, clean: Picture, rng: np.random.Generator, density: str | None = None) -> Picture:
        """A rainy version of `clean`, (H, W, 3) RGB. A crop gets the rain that it would have in the whole picture.

        Args:
            density: take the amount of rain (see `versions`) from this preset.
        """
        return self.layers(clean, rng, density).rainy

    def layers(self, clean: Picture, rng: np.random.Generator, density: str | None = None) -> Layers:
        """The same, taken apart: for looking at it."""
        return _rain(clean, rng, self._of_amounts([density], rng))[0]

    def versions(
        self, clean: Picture, rng: np.random.Generator, densities: Sequence[str] = ("light", "medium", "heavy")
    ) -> list[Picture]:
        """One scene in one storm at several strengths: wind, light and exposure stay, drops are added and come out stronger.

        The look is this synthesiser's; only the amount (density, opacity, veil) is that of the presets named in `densities`.
        """
        return [layers.rainy for layers in _rain(clean, rng, self._of_amounts(densities, rng))]

    def _of_amounts(self, densities: Sequence[str | None], rng: np.random.Generator) -> list[RainConfig]:
        """One look, in each of the amounts."""
        look = self.configs[rng.integers(len(self.configs))] if len(self.configs) > 1 else self.configs[0]
        amounts = [preset(density) if density else look for density in densities]
        return [replace(look, density=a.density, opacity=a.opacity, veil=a.veil) for a in amounts]


def preset(name: str) -> RainConfig:
    """The named ranges."""
    if name not in PRESETS:
        raise unknown_name("rain preset", name, PRESETS)
    return PRESETS[name]


def _rain(clean: Picture, rng: np.random.Generator, configs: Sequence[RainConfig]) -> list[Layers]:
    """Rain from each of `configs`, all from one set of chances: the same quantile of every range, the same drops first."""
    if clean.dtype != np.uint8 or clean.ndim != 3 or clean.shape[2] != 3:
        raise ValueError(f"expected uint8 of (H, W, 3), found {clean.dtype} of {clean.shape}")
    height, width = clean.shape[:2]
    quantiles, tint = rng.random(len(fields(RainConfig))), rng.uniform(-1, 1, (2, 3))
    storms = [_storm(config, quantiles, tint) for config in configs]
    # streaks whose middle lies outside still reach into the picture
    above, beside = np.max([_reach(storm) for storm in storms], axis=0).tolist()
    expected = [storm.density * (height + 2 * above) * (width + 2 * beside) for storm in storms]
    most = max(max(expected), 1e-9)
    drops = rng.random((10, rng.poisson(most)), dtype=np.float32)
    leans = rng.uniform(-1, 1, MAX_SHEETS)
    lens, density = storms[0].lens_radius, storms[0].lens_density
    glass = rng.random((4, rng.poisson(density * (height + 2 * lens) * (width + 2 * lens))))
    noise = rng.standard_normal(clean.shape, dtype=np.float32) if storms[0].grain else np.float32(0)
    rained = []
    for storm, share in zip(storms, expected, strict=True):
        kept = drops[:, : round(drops.shape[1] * share / most)]
        streaks = _draw(_streaks(storm, kept, leans, (height, width), (above, beside)), height, width, storm.flicker)
        veiled = (1 - storm.veil) * clean.astype(np.float32) + storm.veil * storm.airlight
        rainy = veiled + streaks[..., None] * (storm.light - storm.blend * veiled)
        rainy = _through_glass(rainy, glass, storm) + storm.grain * noise
        rained.append(Layers(storm, streaks, veiled, _recorded(rainy, storm.jpeg)))
    return rained


def _storm(config: RainConfig, quantiles: Floats, tint: Floats) -> Storm:
    drawn = {field.name: float(q) for field, q in zip(fields(config), quantiles, strict=True)}

    def linear(name: str) -> float:
        low, high = getattr(config, name)
        return float(low + (high - low) * drawn[name])

    def geometric(name: str) -> float:
        low, high = getattr(config, name)
        return float(low * (high / low) ** drawn[name]) if low > 0 else linear(name)

    scale = geometric("scale")
    colours = 255 * np.array([[linear("light")], [linear("airlight")]]) * (1 + linear("tint") * tint)
    light, airlight = np.clip(colours, 0, 255).astype(np.float32)
    low, high = config.sheets
    return Storm(
        wind=linear("wind"),
        sheets=int(low + (high - low + 1) * drawn["sheets"]),
        fan=linear("fan"),
        jitter=linear("jitter"),
        depth=linear("depth"),
        length=linear("length") * scale,
        radius=linear("thickness") * scale / FWHM,
        defocus=linear("defocus") * scale,
        flicker=linear("flicker"),
        density=geometric("density") / 1e6 / scale**2,
        opacity=linear("opacity"),
        veil=linear("veil"),
        blend=linear("blend"),
        light=light,
        airlight=airlight,
        lens_density=linear("lens_drops") / 1e6 / scale**2,
        lens_radius=linear("lens_radius") * scale,
        grain=linear("grain"),
        jpeg=round(linear("jpeg")),
    )


def _reach(storm: Storm) -> tuple[float, float]:
    """How many rows and columns from its middle a streak of this storm may still be seen."""
    steepest = math.radians(min(abs(storm.wind) + storm.fan + TURBULENCE * storm.jitter, MAX_ANGLE))
    # a streak sideways: its radius over the cosine of its angle
    around = (storm.radius + storm.defocus + 1) / math.cos(steepest)
    return storm.length / 2 + 1, storm.length / 2 * math.sin(steepest) + around


def _streaks(storm: Storm, drops: Floats, leans: Floats, size: tuple[int, int], reach: tuple[float, float]) -> Streaks:
    """Ten uniform chances a drop become a streak, whose middle lies up to `reach` outside a picture of `size`."""
    x, y, far, big, sheet, lean1, lean2, bright, beads, phase = drops
    nearness = (1 + far * (storm.depth**3 - 1)) ** (-1 / 3)  # 1 / z with p(z) ~ z^2 on [1, depth]
    lean = storm.jitter * TURBULENCE * (lean1 + lean2 - 1)
    sheets = storm.wind + storm.fan * leans[: storm.sheets].astype(np.float32)
    which = np.minimum((sheet * storm.sheets).astype(np.intp), storm.sheets - 1)  # the product may round up
    angle = np.radians(np.clip(sheets[which] + lean, -MAX_ANGLE, MAX_ANGLE))
    length = storm.length * nearness * (0.5 + 0.5 * big)
    sharp = storm.radius * nearness * (0.6 + 0.4 * big)
    # what is thinner than a pixel, or out of focus, spreads the same light over more of the picture
    radius = np.maximum(np.hypot(sharp, storm.defocus * nearness), 1)
    return Streaks(
        x=x * (size[1] + 2 * reach[1]) - reach[1],
        y=y * (size[0] + 2 * reach[0]) - reach[0],
        slope=np.tan(angle),
        half=length / 2 * np.cos(angle),
        radius=radius,
        strength=storm.opacity * (0.1 + 0.9 * bright**2) * sharp / radius,
        beads=1 + 2 * beads,
        phase=phase,
    )


def _draw(streaks: Streaks, height: int, width: int, flicker: float) -> Floats:
    """S: the streaks, anti-aliased and tapered, summed up and limited to 1.

    Each streak is drawn row by row, all rows of all streaks of one width at once. Its profile across is (1 - (d / radius)^2)^2,
    whose samples add up to nearly the same wherever the axis lies between two pixels, down to a radius of 1.
    """
    top = np.maximum(np.ceil(streaks.y - streaks.half - 0.5), 0).astype(np.intp)
    bottom = np.minimum(np.floor(streaks.y + streaks.half + 0.5), height - 1).astype(np.intp)
    rows = np.maximum(bottom - top + 1, 0)
    per_column = 1 / (streaks.radius * np.sqrt(1 + streaks.slope**2))  # distance from the axis, in radii
    columns = np.floor(2 / per_column).astype(np.intp) + 1
    # canvas columns beside the picture, so that no pixel of a streak that sticks out needs a test
    side = int(columns.max(initial=1))
    stride = width + 2 * side
    total = np.zeros(height * stride)
    for across in np.unique(columns):
        chosen = np.flatnonzero((columns == across) & (rows > 0))
        # a bound on memory: about 2^18 pixels at a time
        for part in np.array_split(chosen, 1 + int(rows[chosen].sum()) * int(across) // 2**18):
            of = np.repeat(part, rows[part])  # the streak of each row
            row = np.arange(len(of)) + np.repeat(top[part] + rows[part] - np.cumsum(rows[part]), rows[part])
            dy = row.astype(np.float32) - streaks.y[of]
            axis = streaks.x[of] + dy * streaks.slope[of]
            left = np.ceil(axis - 1 / per_column[of])
            seen = np.flatnonzero((left > -across) & (left < width))
            of, row, dy, axis, left = of[seen], row[seen], dy[seen], axis[seen], left[seen]
            along = dy / (streaks.half[of] + 0.5)  # -1 .. 1
            strength = streaks.strength[of] * (1 - along**2)
            if flicker:
                wave = np.cos(np.pi * (streaks.beads[of] * along + 2 * streaks.phase[of]))
                strength *= (1 + flicker * wave) / (1 + flicker)
            # (across, rows): numpy is fast along the last, long axis
            offset = np.arange(across)[:, None]
            shade = (left - axis + offset.astype(np.float32)) * per_column[of]
            np.square(shade, out=shade)
            np.maximum(1 - shade, 0, out=shade)
            np.square(shade, out=shade)
            shade *= strength
            pixel = row * stride + side + left.astype(np.intp) + offset
            total += np.bincount(pixel.ravel(), shade.ravel(), total.size)
    return np.clip(total.reshape(height, stride)[:, side : side + width], 0, 1).astype(np.float32)


def _through_glass(picture: Floats, drops: Floats, storm: Storm) -> Floats:
    """Drops on the lens: each is a small wide-angle lens that shows the scene upside down and out of focus."""
    if not drops.size:
        return picture
    height, width = picture.shape[:2]
    seen_through = picture.copy()
    reach = storm.lens_radius
    for across, down, size, oval in drops.T.tolist():
        x, y, radius = across * (width + 2 * reach) - reach, down * (height + 2 * reach) - reach, reach * (0.4 + 0.6 * size)
        rows = np.arange(max(0, math.ceil(y - radius)), min(height, math.floor(y + radius) + 1))
        columns = np.arange(max(0, math.ceil(x - radius)), min(width, math.floor(x + radius) + 1))
        if not rows.size or not columns.size:
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        dx, dy = np.meshgrid((columns - x).astype(np.float32), (rows - y).astype(np.float32))
        inside = 1 - (dx / (radius * (0.7 + 0.3 * oval))) ** 2 - (dy / radius) ** 2  # 1 in the middle, 0 on the rim
        scene = cv2.remap(picture, x - 4 * dx, y - 4 * dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        scene = cv2.blur(scene, (int(radius) // 2 + 1,) * 2, borderType=cv2.BORDER_REPLICATE)
        cover = np.clip(1.6 * inside, 0, 1)[..., None]  # soft: the camera is focused far behind the glass
        seen_through[window] += cover * (scene - seen_through[window])
    return seen_through


def _recorded(picture: Floats, jpeg: int) -> Picture:
    """8 bits, and a JPEG round trip if a quality is given."""
    recorded = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
    if jpeg:
        encoded = cv2.imencode(".jpg", recorded[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1]
        recorded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1].copy()
    return recorded
