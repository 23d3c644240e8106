"""Memory of one step of each search method beside that of one network, as docs/search.md shows it.

    PYTHONPATH=src python tools/search_memory.py [width] [patch] [batch]

Every case runs in a process of its own. `saved`: bytes kept for backward; `resident`: the highest resident set during the
step less that before it (Linux), so what the step really took, whoever allocated it.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

CASES = {
    "one network, conv3+conv3+se": ("fixed", "conv3+conv3+se"),
    "one network, conv3+conv3+id": ("fixed", "conv3+conv3+id"),
    "one network, sep3+sep3+se": ("fixed", "sep3+sep3+se"),
    "weights, MDARTS (conv3+conv3+se)": ("weights", "conv3+conv3+se"),
    "alphas, echo (conv3+conv3+se)": ("echo", "conv3+conv3+se"),
    "alphas, echo (conv3+conv3+id)": ("echo", "conv3+conv3+id"),
    "alphas, echo (sep3+sep3+se)": ("echo", "sep3+sep3+se"),
    "alphas, pair": ("pair", "conv3+conv3+se"),
    "alphas, active": ("active", "conv3+conv3+se"),
    "alphas, nasp": ("nasp", "conv3+conv3+se"),
    "alphas, DARTS": ("darts", ""),
    "weights, DARTS": ("darts weights", ""),
}


def resident(key: str) -> int:
    """A line of the process's own account, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def measure(method: str, operations: str, width: int, patch: int, batch: int) -> tuple[int, int]:
    """Bytes saved for backward, and bytes that the resident set grew by."""
    import torch

    from derainzoo import create_model
    from derainzoo.nas.architecture import Proximal, Relaxed
    from derainzoo.nas.cost import saved_bytes
    from derainzoo.nas.spaces import AutoDerainSpace

    torch.manual_seed(0)
    space = AutoDerainSpace({"width": width})
    architecture = None
    if method == "fixed":
        net: torch.nn.Module = create_model("autoderain", **(space.arguments | {"operations": operations}))
    else:
        net = space.supernet()
        costs = space.costs(net)
        reading = method if method in ("echo", "pair", "active", "nasp") else "echo"
        architecture = Relaxed(net, costs, 0) if method.startswith("darts") else Proximal(net, costs, 0, reading)
        if operations:
            conv, _, se = operations.split("+")
            architecture.get_buffer("active_conv").fill_(architecture.candidates("conv").index(conv))
            architecture.get_buffer("active_se").fill_(architecture.candidates("se").index(se))
        architecture.settle()
        net.requires_grad_("weights" in method)
    x, y = torch.rand(2, batch, 3, patch, patch)

    def forward() -> torch.Tensor:
        if architecture and "weights" not in method:
            architecture.probe(0)
        return (net(x) - y).abs().mean()

    forward().backward()  # kernels make their buffers at the first call
    net.zero_grad(set_to_none=True)
    saved = saved_bytes(net, forward)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    forward().backward()
    return saved, resident("VmHWM") - before


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("width", type=int, nargs="?", default=16)
    parser.add_argument("patch", type=int, nargs="?", default=64)
    parser.add_argument("batch", type=int, nargs="?", default=4)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    sizes = (arguments.width, arguments.patch, arguments.batch)
    if arguments.case:
        print(*measure(*CASES[arguments.case], *sizes))
        return
    # freed blocks go back at once, or the resident set would show what earlier steps left
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    one: tuple[int, int] | None = None
    print(f"width {sizes[0]}, patch {sizes[1]}, batch {sizes[2]}\n\n| step | saved, MiB | resident, MiB |\n|---|---|---|")
    for case in CASES:
        command = [sys.executable, __file__, *map(str, sizes), "--case", case]
        saved, grown = map(int, subprocess.run(command, env=environment, check=True, capture_output=True).stdout.split())
        one = one or (saved, grown)
        print(f"| {case} | {saved / 2**20:.1f} ({saved / one[0]:.2f}x) | {grown / 2**20:.1f} ({grown / one[1]:.2f}x) |")


if __name__ == "__main__":
    main()
