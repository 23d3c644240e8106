"""Where the package keeps its configuration, and files that appear whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from derainzoo.errors import DerainzooError


def config_dir() -> str:
    """The configuration tree: inside the package when installed from a wheel, beside `src` in a checkout."""
    here = Path(__file__).resolve().parent
    packaged = here / "conf"
    return str(packaged if packaged.is_dir() else here.parents[1] / "conf")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; renamed to it when the block ends well, removed when it does not.

    Not tempfile's: that makes files which only their owner can read. A full disk or a folder that cannot be written to is an
    error for the user.
    """
    temporary = path.with_name(f".{path.stem[:40]}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise DerainzooError(f"cannot write {path}: {error.strerror or error}; check the folder and the space left") from error


def write_text(path: Path, text: str) -> None:
    """Write a text file that no reader ever sees half."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
