"""The gate on the native module: instructions that its cores take, counted by callgrind, against the kept bounds.

    python tools/gate_native.py

Instructions hardly differ from run to run, whatever else the machine does, so a bound is a tenth above what was counted.
The bounds are in `tools/native_bounds.toml`, by the job, the element or the statement. Each scenario of
`native/examples/counted.rs` is counted with few and with many repetitions: the difference is the work alone, without the
process's start.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BOUNDS = Path(__file__).with_name("native_bounds.toml")
FEW, MANY = 1, 11
SLACK = 0.5
"""A count under this share of its bound fails too: the work was left out, or the bound guards nothing any more."""
_TOTALS = re.compile(r"^totals: (\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Bound:
    """What a scenario may take.

    Attributes:
        scenario: its name in `counted.rs`.
        unit: what is counted by.
        units: how many of them one repetition handles.
        most: instructions for each.
    """

    scenario: str
    unit: str
    units: int
    most: float

    def complaint(self, counted: float) -> str | None:
        """What is wrong with a count, or None."""
        if counted > self.most:
            return f"over the bound by {counted / self.most - 1:.0%}"
        if counted < self.most * SLACK:
            return "less than half of the bound: is the work still done? Then lower the bound"
        return None


def main() -> int:
    """Count every scenario, print all of them, and fail if one is out of its bound."""
    if shutil.which("valgrind") is None:
        where = "in CI the gate must run" if os.environ.get("CI") else "the gate on instructions is left out here"
        print(f"valgrind is not installed (apt-get install valgrind): {where}", flush=True)
        return 1 if os.environ.get("CI") else 0
    program = _build()
    complaints = 0
    for bound in _bounds():
        counted = (_count(program, bound.scenario, MANY) - _count(program, bound.scenario, FEW)) / (MANY - FEW)
        counted /= bound.units
        complaint = bound.complaint(counted)
        complaints += complaint is not None
        line = f"{bound.scenario:8} {counted:10,.1f} instructions a {bound.unit}, at most {bound.most:,.1f}"
        print(f"{line}: {complaint or 'ok'}", flush=True)
    return 1 if complaints else 0


def _bounds() -> list[Bound]:
    return [Bound(name, **fields) for name, fields in tomllib.loads(BOUNDS.read_text()).items()]


def _build() -> Path:
    subprocess.run(["cargo", "build", "--quiet", "--release", "--example", "counted"], cwd=ROOT, check=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return target / "release" / "examples" / "counted"


def _count(program: Path, scenario: str, times: int) -> int:
    """Instructions of one whole process."""
    with tempfile.TemporaryDirectory(prefix="backfill-callgrind-") as folder:
        out = Path(folder) / "out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program), scenario, str(times)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        found = _TOTALS.search(out.read_text()) if done.returncode == 0 and out.exists() else None
        if found is None:
            raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return int(found[1])


if __name__ == "__main__":
    sys.exit(main())
