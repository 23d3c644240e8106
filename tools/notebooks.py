"""Execute the notebooks, each in an empty folder; with `--save` keep their outputs, small enough for a repository.

python tools/notebooks.py --tiny            everything small: that they run (what the tests do)
python tools/notebooks.py --save            as a reader would run them: minutes each on one CPU core
python tools/notebooks.py --save 03_what    one of them
"""

import argparse
import base64
import io
import os
import re
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
# what libraries say to everybody, and would only be noise to the reader of a stored notebook
NOISE = re.compile(r".*(TqdmWarning|autonotebook import|`weights_only` was not set).*\n|^\n", re.MULTILINE)


def execute(path: Path, tiny: bool) -> nbformat.NotebookNode:
    """The notebook with its outputs; what it writes goes into a folder that is gone afterwards."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "WANDB_MODE": "offline"}
        environment.pop("DERAINZOO_TINY", None)
        if tiny:
            environment["DERAINZOO_TINY"] = "1"
        client = NotebookClient(notebook, timeout=1800, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute(env=environment)
        for output in (o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream"):
            output.text = output.text.replace(f"{folder}/", "")
    return notebook


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Streams in one piece and without noise, pictures in modest quality, nothing about the machine and the time."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        outputs: list[nbformat.NotebookNode] = []
        for output in cell.outputs:
            if output.output_type == "stream":
                output.name = "stdout"  # the log and what is printed, in their order
                output.text = NOISE.sub("", output.text)
                if outputs and outputs[-1].output_type == "stream":
                    outputs[-1].text += output.text
                    continue
            elif "image/jpeg" in output.get("data", {}):
                picture = Image.open(io.BytesIO(base64.b64decode(output.data["image/jpeg"])))
                small = io.BytesIO()
                picture.save(small, "JPEG", quality=80, optimize=True)
                output.data = {"image/jpeg": base64.b64encode(small.getvalue()).decode()}
            outputs.append(output)
        cell.outputs = [o for o in outputs if o.output_type != "stream" or o.text]
    notebook.metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    return notebook


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of file names; all notebooks if left out")
    parser.add_argument("--tiny", action="store_true", help="everything small")
    parser.add_argument("--save", action="store_true", help="store the outputs")
    asked = parser.parse_args()
    paths = [p for p in sorted(NOTEBOOKS.glob("*.ipynb")) if p.name.startswith(tuple(asked.names) or "")]
    if not paths:
        parser.error(f"no notebook begins with {' or '.join(asked.names)}")
    for path in paths:
        began = time.monotonic()
        notebook = execute(path, asked.tiny)
        if asked.save:
            nbformat.write(tidy(notebook), path)
        print(f"{path.name:40} {time.monotonic() - began:5.0f} s {path.stat().st_size / 1000:6.0f} kB", flush=True)


if __name__ == "__main__":
    main()
