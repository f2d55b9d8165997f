"""What each kernel takes of a GPU: registers, shared memory and spills, as ptxas reports them, and the table in docs/.

python tests/cuda/resources.py BUILD                 prints the table of a build by the cuda preset
python tests/cuda/resources.py BUILD --check TABLE   exits with an error unless it is the one in the file TABLE, and
                                                     if a kernel spills; another compiler than the table's own may
                                                     choose other registers, so there only spills count
python tests/cuda/resources.py BUILD --write TABLE   writes it there
"""

import argparse
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

_ENTRY = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for 'sm_(?P<arch>\d+)\w*'.*?"
    r"Function properties for (?P=name)\s*"
    r"(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads.*?"
    r"Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    flags=re.DOTALL,
)
_BEGIN, _END = "<!-- resources -->", "<!-- end of resources -->"


class Instance(NamedTuple):
    """One template instance of a kernel on one architecture."""

    source: str
    kernel: str
    arch: int
    registers: int
    shared: int
    stack: int
    spilled: int


def instances(build: Path) -> list[Instance]:
    """All kernels of a build."""
    found = []
    for report in sorted(build.rglob("*.cu.o.report")):
        source = report.name.removesuffix(".o.report")
        entries = [match.groupdict() for match in _ENTRY.finditer(report.read_text())]
        names = _demangled([entry["name"] for entry in entries])
        for entry, name in zip(entries, names, strict=True):
            shared = re.search(r"(\d+) bytes smem", entry["rest"])
            spilled = int(entry["stores"]) + int(entry["loads"])
            kernel = re.sub(r"<.*|\(.*", "", name.replace("(anonymous namespace)::", "")).split("::")[-1]
            found.append(
                Instance(
                    source,
                    kernel,
                    int(entry["arch"]),
                    int(entry["registers"]),
                    int(shared[1]) if shared else 0,
                    int(entry["stack"]),
                    spilled,
                )
            )
    if not found:
        sys.exit(f"no report of ptxas under {build}: build it by the cuda preset")
    return found


def table(found: list[Instance]) -> list[str]:
    """One line for each kernel: the range over its instances (types, activations)."""
    archs = sorted({one.arch for one in found})
    groups: dict[tuple[str, str], list[Instance]] = defaultdict(list)
    for one in found:
        groups[one.source, one.kernel].append(one)
    head = ["kernel", "file", "instances", *(f"registers, sm_{arch}" for arch in archs)]
    head += ["shared memory, bytes", "stack, bytes", "spilled, bytes"]
    lines = [_row(head), _row(["---"] * 3 + ["---:"] * (len(head) - 3))]
    for (source, kernel), group in sorted(groups.items()):
        by_arch = [_range([one.registers for one in group if one.arch == arch]) for arch in archs]
        count = len(group) // len(archs)
        rest = [_range([getattr(one, name) for one in group]) for name in ("shared", "stack", "spilled")]
        lines.append(_row([f"`{kernel}`", f"`{source}`", str(count), *by_arch, *rest]))
    return lines


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _range(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _demangled(names: list[str]) -> list[str]:
    if not names:
        return []
    said = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return said.stdout.splitlines()


def compiler() -> str:
    """The version of nvcc, as the table states it."""
    said = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"release ([\d.]+)", said)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    found = instances(options.build)
    made = "\n".join([f"By nvcc {compiler()}:", "", *table(found)])
    spilling = sorted({f"{one.kernel} (sm_{one.arch})" for one in found if one.spilled})
    if spilling:
        sys.exit("kernels spill registers: " + ", ".join(spilling))
    path = options.write or options.check
    if path is None:
        print(made)
        return
    text = path.read_text()
    before, _, rest = text.partition(_BEGIN)
    held, _, after = rest.partition(_END)
    if options.write:
        path.write_text(f"{before}{_BEGIN}\n\n{made}\n\n{_END}{after}")
    elif f"nvcc {compiler()}:" in held and held.strip() != made:
        sys.exit(f"{path} does not hold the table of this build: python {sys.argv[0]} {options.build} --write {path}")


if __name__ == "__main__":
    main()
