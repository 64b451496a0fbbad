"""The command: run the benchmark and write its results, or compare two runs."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from . import import_and_fidelity, workloads
from .libraries import BACKENDS, libraries_for
from .plot import svg
from .report import comparison, markdown
from .servers import serve_place
from .timing import Figure, Run
from .workloads import Scale

HERE = Path(__file__).parent
QUICK = Scale((10, 1_000), (), (1_000,), (100,), seconds=0.12, repeats=2, fresh_peers=False)
FULL = Scale((10, 100, 1_000, 10_000), (100_000,), (1_000, 20_000), (1_000,), seconds=0.5, repeats=3, fresh_peers=True)
WORKS = {
    "times": workloads.reads_and_appends,
    "listing": workloads.listing,
    "fresh": workloads.fresh_processes,
    "costs": workloads.costs,
    "threads": workloads.threads,
}
MORE = ("imports", "fidelity")
_VERSIONS = ("redis", "pymongo", "boto3", "langchain-community", "langchain-mongodb", "openai-agents")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, or compare two runs, by the command line."""
    given = _parser().parse_args(arguments)
    if given.command == "compare":
        print(comparison(Run.load(given.old), Run.load(given.new)))
        return
    run = Run(_describe_run(quick=given.quick, cpu=given.cpu))
    scale = QUICK if given.quick else FULL
    new = list(_measure_figures(given, replace(scale, clock=time.process_time) if given.cpu else scale))
    run.figures = [*_keep_earlier(given, new), *new]
    for script in given.script or _choose_scripts(given):
        run.scripts[script.name] = _run_script(script)
    given.out.mkdir(parents=True, exist_ok=True)
    run.save(given.out / "benchmark.json")
    (given.out / "benchmark.md").write_text(markdown(run))
    if any(figure.work == "append" and figure.unit == "us" for figure in run.figures):
        (given.out / "benchmark.svg").write_text(svg(run))
    print(markdown(run))
    print(f"written to {given.out}: benchmark.json, benchmark.md, benchmark.svg", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command")
    run = commands.add_parser("run", help="measure (this is what happens without a command)")
    for each in (parser, run):
        each.add_argument("--quick", action="store_true", help="fewer lengths and rounds: within three minutes")
        each.add_argument(
            "--backend", action="append", choices=BACKENDS, help="measure only this backend; may be repeated"
        )
        each.add_argument("--work", action="append", choices=(*WORKS, *MORE), help="measure only this; may be repeated")
        each.add_argument(
            "--script", action="append", type=Path, default=[], help="run this script and keep its output"
        )
        each.add_argument("--cpu", action="store_true", help="processor time of single calls: for a busy machine")
        each.add_argument("--add", action="store_true", help="add to the results already in the folder")
        each.add_argument("--out", type=Path, default=Path("build/benchmark"), help="folder for the results")
    compare = commands.add_parser("compare", help="what changed from one benchmark.json to another")
    compare.add_argument("old", type=Path)
    compare.add_argument("new", type=Path)
    return parser


def _measure_figures(given: argparse.Namespace, scale: Scale) -> Iterator[Figure]:
    chosen = given.work or (*WORKS, *MORE)
    for backend in given.backend or BACKENDS:
        if len(libraries_for(backend)) < len(BACKENDS[backend]):
            _print_progress(f"{backend}: other libraries are not installed; see requirements-peers.txt")
        for name in (*WORKS, "fidelity"):
            if name not in chosen:
                continue
            begun = time.perf_counter()
            with serve_place(backend) as place:
                yield from import_and_fidelity.fidelity(place) if name == "fidelity" else WORKS[name](place, scale)
            _print_progress(f"{backend}: {name} took {time.perf_counter() - begun:.0f} s")
    if "imports" in chosen:
        yield from import_and_fidelity.imports(scale.repeats, peers=scale.fresh_peers)


def _choose_scripts(given: argparse.Namespace) -> list[Path]:
    """Return the scripts that a full run ends with; none for a partial one."""
    partly = given.quick or given.backend or given.work
    return [] if partly else sorted(HERE.glob("bench_*.py"))


def _keep_earlier(given: argparse.Namespace, new: Sequence[Figure]) -> list[Figure]:
    """Return the figures of an earlier run that this one does not replace."""
    path = given.out / "benchmark.json"
    if not (given.add and path.exists()):
        return []
    places = {figure.place for figure in new}
    return [figure for figure in Run.load(path).figures if figure.place not in places]


def _print_progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _run_script(script: Path) -> str:
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    return done.stdout if done.returncode == 0 else f"{done.stdout}\nfailed: {done.stderr[-1000:]}"


def _describe_run(*, quick: bool, cpu: bool) -> dict[str, str]:
    found = {"when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", "scale": "quick" if quick else "full"}
    found["times"] = "of the processor" if cpu else "of the clock"
    found["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    found["Python"] = platform.python_version()
    for name in _VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main()
