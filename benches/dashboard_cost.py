"""What the dashboard costs a training: the same run with it and with --no-dashboard, by turns.

    python benches/dashboard_cost.py target/release/mlrm configs/demo.toml --steps 220 --rounds 4

Both run on a terminal of their own (120 columns, 40 rows). A run's time is that from its first logged
step to its last, waiting for data included, read from `events.jsonl`; evaluation, checkpoints and probes are off. The ratio
is that of the sums over all rounds. The processor time of the dashboard's own thread is sampled as
well (Linux): it bounds the cost where the clock is noisy. Needs Python's standard library only.
"""

import argparse
import fcntl
import json
import os
import pty
import statistics
import struct
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path


def thread_seconds(pid: int, name: str) -> float:
    """Processor seconds of the threads of process `pid` that are called `name`."""
    ticks = 0
    for task in Path(f"/proc/{pid}/task").glob("*/stat"):
        try:
            text = task.read_text()
        except OSError:  # ended meanwhile
            continue
        head, tail = text.rsplit(")", 1)
        if head.split("(", 1)[1] == name:
            fields = tail.split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def train(mlrm: str, config: str, steps: int, folder: Path, dashboard: bool) -> dict:
    """One run in a terminal; its seconds of training and those of the dashboard's thread."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    run = folder / ("with" if dashboard else "without")
    settings = {
        "run.dir": run,
        "data.root": folder / "data",
        "train.max_steps": steps,
        "train.eval_every_steps": 0,
        "train.save_every_steps": 0,
        "train.saliency_every_steps": 0,
        "eval.baselines": "[]",
    }
    command = [mlrm, "train", config, "--overwrite"]
    command += [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    if not dashboard:
        command.append("--no-dashboard")
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "", "LINES": ""}
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True
    )
    os.close(slave)

    def drain() -> None:
        try:
            while os.read(master, 65536):
                pass
        except OSError:  # the terminal's other end is closed
            pass

    reader = threading.Thread(target=drain)
    reader.start()
    drawing = 0.0
    while process.poll() is None:
        drawing = max(drawing, thread_seconds(process.pid, "dashboard"))
        time.sleep(0.5)
    reader.join()
    os.close(master)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {process.returncode}")
    events = [json.loads(line) for line in (run / "events.jsonl").open()]
    taken = [event["time_seconds"] for event in events if event["event"] == "train_step"]
    return {"seconds": taken[-1] - taken[0], "drawing": drawing}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mlrm")
    parser.add_argument("config")
    parser.add_argument("--steps", type=int, default=220)
    parser.add_argument("--rounds", type=int, default=4)
    arguments = parser.parse_args()
    ratios, sums, drawing = [], {True: 0.0, False: 0.0}, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for round_number in range(arguments.rounds):
            # Which goes first changes, so that a machine that warms up favours neither.
            order = (True, False) if round_number % 2 == 0 else (False, True)
            taken = {}
            for dashboard in order:
                one = train(
                    arguments.mlrm, arguments.config, arguments.steps, Path(folder), dashboard
                )
                taken[dashboard] = one["seconds"]
                sums[dashboard] += one["seconds"]
                drawing += one["drawing"]
            ratios.append(taken[True] / taken[False])
            print(f"round {round_number + 1}: with {taken[True]:.2f} s, without "
                  f"{taken[False]:.2f} s, ratio {ratios[-1]:.4f}", flush=True)
    cores = os.cpu_count() or 1
    print(f"ratio of the sums {sums[True] / sums[False]:.4f}, median {statistics.median(ratios):.4f}")
    print(f"dashboard thread: {drawing / sums[True]:.3%} of the run's time on one of {cores} cores")


if __name__ == "__main__":
    main()
