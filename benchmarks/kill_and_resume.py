"""Kill trainings at random moments, resume them, and compare the weights bit for bit.

    python -m benchmarks.kill_and_resume --kills 20

Each trial starts a training in a process of its own, sends SIGKILL after a random share of the time
that an uninterrupted run takes, resumes until the run is finished, and compares every array of the
final checkpoint with the uninterrupted run's.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from parity.lockstep.checkpoints import read_checkpoint
from parity.lockstep.fields import read_table
from parity.lockstep.loop import state_digest
from parity.rng import stream

# Some seconds of training: long enough that a kill falls into every phase of a run.
_WANTED = [
    "--recipe",
    "best_sgd",
    "--data",
    "digits",
    "--model",
    "resnet8:width=4",
    "--epochs",
    "6",
]
_PATIENCE_SECONDS = 300.0


def train(*arguments: str) -> "subprocess.Popen[bytes]":
    """Start a training process."""
    command = [sys.executable, "-m", "parity.train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run_whole(framework: str, folder: Path) -> float:
    """Train without interruption and return the seconds it took."""
    started = time.perf_counter()
    code = train("--framework", framework, *_WANTED, "--out", str(folder)).wait(_PATIENCE_SECONDS)
    if code != 0:
        message = f"the uninterrupted {framework} run exited with {code}"
        raise RuntimeError(message)
    return time.perf_counter() - started


def run_killed(framework: str, folder: Path, *, kill_after: list[float]) -> int:
    """Train, killing the process after each of the given seconds; return how many hit it."""
    hits = 0
    process = train("--framework", framework, *_WANTED, "--out", str(folder))
    for seconds in kill_after:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            hits += 1
            process = resume(framework, folder)
    process.wait(_PATIENCE_SECONDS)
    return hits


def resume(framework: str, folder: Path) -> "subprocess.Popen[bytes]":
    """Go on with a killed run, or start it if it was killed before its folder was made."""
    if (folder / "run.json").exists():
        return train("--resume", str(folder))
    if folder.exists():
        for path in folder.iterdir():
            path.unlink()
    return train("--framework", framework, *_WANTED, "--out", str(folder))


def fingerprint(folder: Path) -> tuple[str, str, str]:
    """Return what must be equal: status, digest of the batches, digest of the final weights."""
    record = read_table(folder / "run.json")
    return record["status"], record["stream_digest"], state_digest(read_checkpoint(folder).state)


def repeat_killed(framework: str, folder: Path, *, whole: Path, seconds: float, seed: int) -> bool:
    """Return whether a run killed within `seconds` ends in the same bits as the one in `whole`."""
    moment = float(stream(seed, "kill", framework).uniform(0.1, 1.0)) * seconds
    run_killed(framework, folder, kill_after=[moment])
    return fingerprint(folder) == fingerprint(whole)


def main() -> int:
    """Run the trials of both frameworks and print how many ended in the same bits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=20, help="trials a framework, one kill each")
    trials = parser.parse_args().kills
    failures = 0
    with tempfile.TemporaryDirectory() as name:
        for framework in ("torch", "keras"):
            root = Path(name) / framework
            seconds = run_whole(framework, root / "whole")
            same = 0
            for seed in range(trials):
                folder = root / f"killed-{seed}"
                same += repeat_killed(
                    framework, folder, whole=root / "whole", seconds=seconds, seed=seed
                )
            failures += trials - same
            print(f"{framework}: {same} of {trials} killed runs end in the same bits", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
