"""What mkdocs calls while it builds the site (mkdocs.yml): patterns in the navigation, notebooks as pages, formulas as MathML.

Strict builds stay strict: a page that is in no menu, a link or an anchor that leads nowhere is a warning, and fails them.
"""

import base64
import fnmatch
import html
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import latex2mathml.converter
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that have their sources elsewhere, then write out the navigation."""
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in pages_of(path):
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    files.append(File.generated(config, "changes.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    assert config.nav is not None
    config.nav = expand(config.nav, [file.src_uri for file in files.documentation_pages()])
    return files


def expand(nav: list[Any], pages: list[str]) -> list[Any]:
    """Every pattern becomes the pages that match it, sorted, without those that are named or were matched before."""
    taken = set(_named(nav))

    def walk(entry: Any) -> Iterator[Any]:
        if isinstance(entry, dict):
            yield {title: [e for part in below for e in walk(part)] for title, below in entry.items()}
        elif "*" in entry:
            found = sorted(p for p in pages if p not in taken and _matches(p, entry))
            taken.update(found)
            yield from found
        else:
            yield entry

    return [e for entry in nav for e in walk(entry)]


def _named(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        if isinstance(entry, dict):
            for below in entry.values():
                yield from _named(below)
        elif "*" not in entry:
            yield entry


def _matches(page: str, pattern: str) -> bool:
    """In one folder: `*.md` is no page of a folder below."""
    same = PurePosixPath(page).parent == PurePosixPath(pattern).parent
    return same and fnmatch.fnmatch(PurePosixPath(page).name, PurePosixPath(pattern).name)


def pages_of(path: Path) -> Iterator[tuple[str, str | bytes]]:
    """A notebook as the names and contents of a Markdown page and its pictures."""
    text: list[str] = []
    for i, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            text.append(re.sub(r"\]\((\w+)\.ipynb\)", r"](\1.md)", cell.source))
            continue
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        text.append(f"```python\n{source.strip()}\n```")
        for k, output in enumerate(cell.outputs):
            data = output.get("data", {})
            if "image/jpeg" in data:
                name = f"{path.stem}-{i}-{k}.jpg"
                yield name, base64.b64decode(data["image/jpeg"])
                text.append(f"![output of the code above]({name})")
            elif "image/svg+xml" in data:
                name = f"{path.stem}-{i}-{k}.svg"
                yield name, data["image/svg+xml"]
                text.append(f"![output of the code above]({name})")
            else:
                text.append(f"<pre class='output'>{html.escape(output.get('text') or data['text/plain'])}</pre>")
    yield f"{path.stem}.md", "\n\n".join(text) + "\n"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository that are not part of the site become plain text; broken ones stay, and are found."""

    def unlink(link: re.Match[str]) -> str:
        target = (ROOT / "docs" / page.file.src_uri).parent / link[2]
        outside = target.exists() and not target.resolve().is_relative_to(ROOT / "docs")
        return link[1] if outside else link[0]

    return re.sub(r"(?<!!)\[([^\]]+)\]\((\.\.[^)#]*)\)", unlink, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Formulas as MathML, which browsers show by themselves."""

    def convert(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        return latex2mathml.converter.convert(html.unescape(formula[2]).strip()[2:-2], display=display)

    return re.sub(r'<(div|span) class="arithmatex">(.*?)</\1>', convert, content, flags=re.DOTALL)
