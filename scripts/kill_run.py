#!/usr/bin/env python3
"""Kills a run at random moments, lets it finish, and compares it with one that nobody disturbed.

    python3 scripts/kill_run.py --kills 10 -- target/debug/hardn demo --samples 2

The command is run with `--out REFERENCE` to its end, then again and again with `--out KILLED`, each time ended by
SIGKILL after a random share of the time the first run took, until the kills are used up; the last run may end. Every
file of the two folders must then be the same, byte for byte, but for those that record times.
"""

import argparse
import filecmp
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Speed is measured anew each time; checkpoints are working files of a training.
IGNORED = {"timings.jsonl", "checkpoints", "tensorboard"}


def start(command: list[str], out: Path) -> subprocess.Popen:
    """The command with its output folder, in a process group of its own."""
    return subprocess.Popen(
        [*command, "--out", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def files(folder: Path) -> set[Path]:
    """All files below a folder that must be equal."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path for path in found if not IGNORED.intersection(path.parts)}


def run_to_end(command: list[str], out: Path) -> float:
    """Runs the command to its end; the seconds it took."""
    began = time.monotonic()
    process = start(command, out)
    _, said = process.communicate()
    if process.returncode != 0:
        sys.exit(f"the command failed with {process.returncode}:\n{said.decode()[-2000:]}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the two runs go; default: a temporary folder")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        parser.error("give the command after --")
    folder = args.folder or Path(tempfile.mkdtemp(prefix="hardn-kills-"))
    reference, killed = folder / "reference", folder / "killed"
    for out in (reference, killed):
        shutil.rmtree(out, ignore_errors=True)
    took = run_to_end(command, reference)
    print(f"undisturbed: {took:.0f} s")
    moments = random.Random(args.seed)
    n_kills = 0
    while n_kills < args.kills:
        seconds = moments.uniform(0.0, 1.5) * took / args.kills
        process = start(command, killed)
        try:
            process.communicate(timeout=seconds)
            print(f"ended by itself before kill {n_kills + 1}")
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            n_kills += 1
            n_files = len(files(killed)) if killed.exists() else 0
            print(f"kill {n_kills} after {seconds:.1f} s; {n_files} files so far", flush=True)
    run_to_end(command, killed)
    theirs, ours = files(reference), files(killed)
    wrong = sorted(str(path) for path in theirs ^ ours)
    wrong += sorted(
        str(path)
        for path in theirs & ours
        if not filecmp.cmp(reference / path, killed / path, shallow=False)
    )
    if wrong:
        sys.exit(f"{n_kills} kills; these files differ: {', '.join(wrong)} (see {folder})")
    print(f"{n_kills} kills, {len(ours)} files, all equal")
    if args.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
