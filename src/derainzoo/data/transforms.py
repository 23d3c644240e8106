"""Geometry that the rainy versions and their background go through together.

Albumentations does the work. Photometric transforms are refused: they would change the background as well, or change only one
of the two, and either way teach something that is not rain removal.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from derainzoo.errors import DerainzooError, unknown_name

Pixels = NDArray[Any]


class JointGeometry:
    """Callable on a stack (n, H, W, 3) of images of one scene.

    Args:
        names: albumentations transforms by name, with arguments where needed: `["D4", {"Rotate": {"limit": 5, "p": 0.5}}]`.
    """

    def __init__(self, names: Sequence[str | Mapping[str, Mapping[str, Any]]]) -> None:
        import albumentations as A

        self.compose = A.Compose([_transform(n) for n in names])

    def __call__(self, stack: Pixels, rng: np.random.Generator) -> Pixels:
        self.compose.set_random_seed(int(rng.integers(2**31)))
        return np.ascontiguousarray(self.compose(images=stack)["images"])


def _transform(spec: str | Mapping[str, Mapping[str, Any]]) -> Any:
    import albumentations as A

    name, arguments = (spec, {"p": 1.0}) if isinstance(spec, str) else next(iter(spec.items()))
    geometric = [n for n in dir(A) if isinstance(getattr(A, n), type) and issubclass(getattr(A, n), A.DualTransform)]
    if not hasattr(A, name):
        raise unknown_name("albumentations transform", name, geometric)
    if name not in geometric:
        raise DerainzooError(
            f"data.augment: '{name}' changes colours, not geometry. Rain is added or removed in colour, so rainy image and "
            "background may only share geometry. Use D4, HorizontalFlip, Rotate, Affine and the like."
        )
    return getattr(A, name)(**dict(arguments))
