#!/usr/bin/env python
"""Large logs, many pictures and many notes: what `mlrm` makes of them in a second, beside DuckDB and in several processes.

    python benches/corpora.py target/release/mlrm pairs [--events 1e7 1e8] [--memory 4GB] [--duckdb] [--dir DIR]
    python benches/corpora.py target/release/mlrm pictures [--pictures 20000] [--s3] [--dir DIR]
    python benches/corpora.py target/release/mlrm embed --model MODEL [--notes 4000] [--images 4] [--dir DIR]

pairs: `mlrm data pairs` with its default rules on a Parquet log (50 events a user in 180 days, the notes uniformly drawn,
seed 0), with all memory and within `--memory`; with `--duckdb` the query that `mlrm data pairs --sql duckdb` writes, on two threads, within
the same memory, and whether both gave as many pairs.
pictures: `mlrm data check`, which reads and decodes every picture on all cores, of the same JPEG files in a folder, in four tar
shards and in four Parquet shards; with `--s3` (a binary with the cargo feature `object-store`) also of the same three in a local S3, moto's
server in a process of its own: from an empty cache, and again from a full one, after what the server gives to a client that
does nothing with it. What the server's processor worked is told beside, which is one core at most: it is a Python process.
embed: `mlrm embed` of one process, and of two with a thread each at a time, as shards that are then merged.

Each line: seconds of the wall, of the processor (user and system, all threads), peak resident memory. Needs numpy and pyarrow,
duckdb for `--duckdb`, pillow for pictures, `moto[server]` for `--s3`.
"""
from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAYS = 180


class Cost:
    """What one command, or several at a time, took."""

    def __init__(self, *commands: list, limit: float | None = None, **environment: str):
        begin = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        variables = {**os.environ, **environment}
        running = [subprocess.Popen([str(word) for word in c], env=variables, stdout=subprocess.PIPE, text=True) for c in commands]
        self.peak = 0
        self.said = ""
        for process in running:
            try:
                self.said += process.communicate(timeout=limit)[0]
            except subprocess.TimeoutExpired:
                process.kill()
                raise SystemExit(f"not done after {limit:.0f} s: {' '.join(map(str, commands[0]))}") from None
            if process.returncode != 0:
                raise SystemExit(f"exit code {process.returncode}: {' '.join(map(str, commands[0]))}")
        self.wall = time.perf_counter() - begin
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        self.processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def line(self, name: str, amount: float, unit: str) -> None:
        print(f"{name:<46} {self.wall:>8.1f} s wall {self.processor:>8.1f} s processor "
              f"{amount / self.wall:>12,.1f} {unit}/s {amount / self.processor:>12,.1f} {unit} a second of a core", flush=True)


def measured(command: list, name: str, amount: float, unit: str, limit: float | None = None, **environment: str) -> Cost:
    """One command under GNU time's question: how much memory was resident at most."""
    wrapped = [sys.executable, "-c", PEAK, *command]
    cost = Cost(wrapped, limit=limit, **environment)
    cost.said, _, peak = cost.said.rstrip().rpartition("\n")
    cost.line(name, amount, unit)
    print(f"{'':<46} {int(peak) / 2**20:>8.2f} GiB at most", flush=True)
    return cost


PEAK = ("import resource,subprocess,sys;c=subprocess.run(sys.argv[1:]).returncode;"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss);sys.exit(c)")


def log_of(file: Path, events: int, notes: int) -> None:
    """A log of `events` rows in random order, 4 million rows at a time."""
    draw = np.random.default_rng(0)
    users = events // 50
    schema = pa.schema([("user_id", pa.int64()), ("note_id", pa.int64()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=False) as out:
        for begin in range(0, events, 4_000_000):
            n = min(4_000_000, events - begin)
            columns = (draw.integers(0, users, n), draw.integers(0, notes, n), 1_700_000_000 + draw.integers(0, DAYS * 86_400, n))
            out.write_table(pa.table([pa.array(c) for c in columns], schema=schema))


DUCKDB = """
import sys, duckdb
log, query, out, memory, temporary = sys.argv[1:]
c = duckdb.connect()
c.execute(f"SET threads=2; SET memory_limit='{memory}'; SET temp_directory='{temporary}'")
c.execute(f"CREATE VIEW interactions AS SELECT * FROM '{log}'")
text = open(query).read().strip().rstrip(';')
c.execute(f"COPY ({text}) TO '{out}' (FORMAT parquet)")
"""


def pairs(mlrm: str, folder: Path, a: argparse.Namespace) -> None:
    for events in (int(float(e)) for e in a.events):
        notes = min(events // 100, 2_000_000)
        file = folder / f"log-{events}.parquet"
        if not file.exists():
            log_of(file, events, notes)
        print(f"{events:,} events of {events // 50:,} users, {notes:,} notes, {file.stat().st_size / 1e9:.2f} GB", flush=True)
        rows = {}
        for memory in a.memory:
            out = folder / "pairs.parquet"
            measured([mlrm, "data", "pairs", file, "--memory", memory, "--out", out],
                     f"mlrm data pairs --memory {memory}", events, "events")
            rows[memory] = pq.ParquetFile(out).metadata.num_rows
            out.unlink()
        if a.duckdb:
            query, out = folder / "pairs.sql", folder / "duckdb.parquet"
            query.write_text(subprocess.run([mlrm, "data", "pairs", "--sql", "duckdb"], check=True, capture_output=True, text=True).stdout)
            for memory in a.memory:
                # Without --memory worth the name, what DuckDB takes by itself: 80 % of the machine's.
                limit = memory if memory != "1000GB" else "19GB"
                try:
                    measured([sys.executable, "-c", DUCKDB, file, query, out, limit, folder / "duckdb"],
                             f"duckdb, memory_limit {limit}", events, "events", limit=a.limit)
                    rows[f"duckdb {limit}"] = pq.ParquetFile(out).metadata.num_rows
                except SystemExit as failure:
                    print(f"duckdb, memory_limit {limit}: {str(failure)[:200]}", flush=True)
        print("pairs:", rows, flush=True)
        if not a.keep:
            file.unlink()


def jpegs(folder: Path, count: int) -> list[Path]:
    """Drawn pictures of 256 by 256 pixels, 10 to 20 kB each."""
    from PIL import Image

    draw = np.random.default_rng(1)
    folder.mkdir(parents=True)
    files = []
    for number in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).resize((256, 256), Image.BICUBIC)
        file = folder / f"{number:06}.jpg"
        coarse.save(file, quality=85)
        files.append(file)
    return files


def shards(folder: Path, files: list[Path]) -> None:
    (folder / "tar").mkdir()
    (folder / "parquet").mkdir()
    for shard in range(4):
        part = files[shard * len(files) // 4:(shard + 1) * len(files) // 4]
        with tarfile.open(folder / f"tar/{shard}.tar", "w") as out:
            for file in part:
                out.add(file, file.name)
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        column = pa.array([{"bytes": file.read_bytes(), "path": file.name} for file in part], struct)
        pq.write_table(pa.table({"image": column}), folder / f"parquet/{shard}.parquet", row_group_size=100, compression="none")


def pictures(mlrm: str, folder: Path, a: argparse.Namespace) -> None:
    files = jpegs(folder / "images", a.pictures)
    shards(folder, files)
    notes = folder / "notes.jsonl"
    notes.write_text("".join(json.dumps({"id": f.stem, "title": f"note {f.stem}", "image": f.name}) + "\n" for f in files))
    size = sum(f.stat().st_size for f in files) / len(files)
    print(f"{len(files):,} JPEG files of 256 x 256 pixels, {size / 1e3:.0f} kB each", flush=True)

    for name, images in (("folder", "images"), ("tar", "tar/*.tar"), ("Parquet", "parquet/*.parquet")):
        measured([mlrm, "data", "check", folder, "--images", folder / images], name, len(files), "pictures")
    if a.s3:
        pictures_of_s3(mlrm, folder, files)


class S3:
    """moto's S3 in a process of its own, with a bucket `shop` that holds what lies below a folder."""

    def __init__(self, root: Path, *parts: str):
        import boto3

        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.process = subprocess.Popen([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                break
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit("moto's server does not start: is moto[server] installed?") from None
                time.sleep(0.1)
        self.environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}", "AWS_ALLOW_HTTP": "true",
                            "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "NO_PROXY": "127.0.0.1"}
        client = boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
                              aws_access_key_id="x", aws_secret_access_key="x")
        client.create_bucket(Bucket="shop")
        self.objects = {}
        for file in sorted(file for part in parts for file in (root / part).iterdir()):
            key = str(file.relative_to(root))
            # Public, so that a request without a signature shows what the server gives.
            client.put_object(Bucket="shop", Key=key, Body=file.read_bytes(), ACL="public-read")
            self.objects[key] = file.stat().st_size

    def processor(self) -> float:
        """Seconds of the processor that the server worked until now."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def get(self, part: tuple[str, int, int]) -> int:
        """Asks for bytes of an object, and gives how many came."""
        key, begin, end = part
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", f"/shop/{key}", headers={"Range": f"bytes={begin}-{end - 1}"})
        content = connection.getresponse().read()
        connection.close()
        assert len(content) == end - begin, (key, len(content))
        return len(content)

    def given(self, name: str, parts: list[tuple[str, int, int]]) -> None:
        """What the server gives to 16 threads that ask for these parts and throw them away."""
        begin, before = time.perf_counter(), self.processor()
        with ThreadPoolExecutor(16) as threads:
            size = sum(threads.map(self.get, parts))
        wall = time.perf_counter() - begin
        print(f"{name:<46} {wall:>8.1f} s wall {self.processor() - before:>8.1f} s processor of the server "
              f"{len(parts) / wall:>12,.1f} requests/s {size / wall / 1e6:>8,.1f} MB/s", flush=True)


def pictures_of_s3(mlrm: str, folder: Path, files: list[Path]) -> None:
    server = S3(folder, "images", "tar", "parquet")
    try:
        size = sum(file.stat().st_size for file in files)
        bound = 2 * size
        print(f"S3 on this machine; cache of at most {bound / 1e6:,.0f} MB, the pictures are {size / 1e6:,.0f} MB", flush=True)
        pictures_of = [(key, 0, size) for key, size in server.objects.items() if key.startswith("images/")]
        server.given("the server alone, a picture a request", pictures_of)
        shards = [(key, begin, min(begin + (1 << 21), size)) for key, size in server.objects.items() if key.startswith("tar/")
                  for begin in range(0, size, 1 << 21)]
        server.given("the server alone, 2 MiB of a shard a request", shards)
        for name, images in (("prefix", "images"), ("tar", "tar/*.tar"), ("Parquet", "parquet/*.parquet")):
            with tempfile.TemporaryDirectory(dir=folder) as cache:
                for turn in ("cold", "warm"):
                    before = server.processor()
                    measured([mlrm, "data", "check", folder, "--images", f"s3://shop/{images}", "--cache-bytes", bound],
                             f"S3, {name}, {turn} cache", len(files), "pictures", XDG_CACHE_HOME=cache, **server.environment)
                    print(f"{'':<46} {server.processor() - before:>8.1f} s processor of the server", flush=True)
    finally:
        server.process.terminate()
        server.process.wait()


def embed(mlrm: str, folder: Path, a: argparse.Namespace) -> None:
    files = jpegs(folder / "images", a.images)
    words = [line.strip() for line in open(__file__, encoding="utf-8") if line.strip()]
    notes = folder / "notes.jsonl"
    with notes.open("w") as out:
        for number in range(a.notes):
            text = " ".join(words[(number * 7 + k * 13) % len(words)] for k in range(6))
            out.write(json.dumps({"id": f"n{number}", "title": f"note {number}", "content": text,
                                  "image": f"images/{files[number % len(files)].name}"}) + "\n")
    common = [mlrm, "embed", a.model, "--notes", notes, *(word for s in a.set for word in ("--set", s))]
    measured([*common, "--out", folder / "one.safetensors"], "embed, one process", a.notes, "notes")
    sharded = [[*common, "--out", folder / f"shards/{i}.safetensors", "--shard", f"{i}/2"] for i in range(2)]
    (folder / "shards").mkdir()
    Cost(*sharded, RAYON_NUM_THREADS="1").line("embed, two processes of a thread", a.notes, "notes")
    measured([mlrm, "embed", "--merge", folder / "shards", "--out", folder / "merged.safetensors"], "embed --merge", a.notes, "notes")
    same = (folder / "merged.safetensors").read_bytes() == (folder / "one.safetensors").read_bytes()
    print("the merged file has", "the bytes of the undivided one" if same else "other bytes", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mlrm")
    parser.add_argument("what", choices=("pairs", "pictures", "embed"))
    parser.add_argument("--events", nargs="+", default=["1e7"])
    parser.add_argument("--memory", nargs="+", default=["1000GB", "4GB"])
    parser.add_argument("--duckdb", action="store_true")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that DuckDB may take")
    parser.add_argument("--keep", action="store_true", help="keep the drawn logs")
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--s3", action="store_true", help="read the pictures from a local S3 as well")
    parser.add_argument("--model")
    parser.add_argument("--notes", type=int, default=4_000)
    parser.add_argument("--images", type=int, default=4, help="different pictures of the notes")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--dir", type=Path, help="where the data go, in place of a temporary folder")
    a = parser.parse_args()
    folder = a.dir or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    try:
        {"pairs": pairs, "pictures": pictures, "embed": embed}[a.what](str(Path(a.mlrm).resolve()), folder, a)
    finally:
        if a.dir is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
