"""Train multimodal embedding models by the binary `mlrm`, and read what it writes.

    run = mlrm.train("shop.toml", {"train.max_steps": 2000})
    steps = mlrm.load_events(run, "train_step")
    notes = mlrm.embeddings("shop.parquet")

Everything else is done by the binary, which `pip install mlrm` puts on the path: `mlrm --help`.
"""
from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sysconfig
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["Embeddings", "MlrmError", "binary", "embeddings", "load_events", "train"]


class MlrmError(RuntimeError):
    """The binary ended with an error, which is the message."""


def binary() -> Path:
    """The binary `mlrm`: that of this installation, else the one on the path."""
    name = "mlrm" + (sysconfig.get_config_var("EXE") or "")
    for scheme in (None, f"{os.name}_user"):
        folder = sysconfig.get_path("scripts", scheme) if scheme else sysconfig.get_path("scripts")
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    found = shutil.which("mlrm")
    if found is None:
        raise FileNotFoundError("the binary `mlrm` is neither in this installation nor on the path")
    return Path(found)


def train(config: str | os.PathLike | dict, set: dict[str, Any] | None = None, *, resume: bool = False,
          overwrite: bool = False) -> Path:
    """Trains, measures the chosen model beside its baselines, and gives the run folder.

    `config` is a TOML file, or its content as a dictionary; `set` overrides keys (`{"train.max_steps": 100}`). `resume`
    goes on with the run in `run.dir`, `overwrite` replaces it. Progress goes to standard error and output, as that of
    `mlrm train` does. Ctrl-C saves and stops.

    Raises MlrmError where the settings are refused, and CalledProcessError where training fails after that.
    """
    overrides = [f"--set={key}={_toml(value)}" for key, value in (set or {}).items()]
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(config, dict):
            path = Path(folder) / "config.toml"
            lines = (f"{_toml_key(key)} = {_toml(value)}\n" for key, value in config.items())
            path.write_text("".join(lines), encoding="utf-8")
        else:
            path = Path(config)
        checked = subprocess.run([binary(), "config", "check", path, "--resolved", *overrides], capture_output=True,
                                 encoding="utf-8")
        if checked.returncode != 0:
            raise MlrmError(checked.stderr.strip())
        options = ["--resume"] * resume + ["--overwrite"] * overwrite
        command = [binary(), "train", path, "--no-dashboard", *options, *overrides]
        with subprocess.Popen(command) as process:
            while process.poll() is None:
                try:
                    process.wait()
                except KeyboardInterrupt:
                    # The terminal has told the binary too, which saves and stops.
                    continue
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)
    return Path(tomllib.loads(checked.stdout)["run"]["dir"])


def load_events(run: str | os.PathLike, event: str | None = None, *, frame: str | None = None):
    """The events of a run, a row each, as a data frame: all of them, or those of one kind (`train_step`).

    `run` is a run folder or its `events.jsonl`. Fields of fields have columns of their own (`slices.all.recall@10`);
    numbers that JSON cannot write are read as such. A resumed run has its lost steps twice, as the file has. `frame` is
    `pandas` or `polars`; without it whichever is installed, pandas first.
    """
    path = Path(run)
    text = (path / "events.jsonl" if path.is_dir() else path).read_text(encoding="utf-8")
    # What comes after the last line break is being written.
    lines = [json.loads(line) for line in text.split("\n")[:-1] if line]
    rows = [_flat(row) for row in lines if event is None or row["event"] == event]
    for name in [frame] if frame else ["pandas", "polars"]:
        try:
            if name == "pandas":
                import pandas

                return pandas.DataFrame(rows)
            if name == "polars":
                import polars

                return polars.from_dicts(rows, infer_schema_length=None) if rows else polars.DataFrame()
        except ModuleNotFoundError:
            if frame:
                raise
            continue
        raise ValueError(f"frame = {name!r}: `pandas` and `polars` are known")
    raise ModuleNotFoundError("neither pandas nor polars is installed: `pip install mlrm[pandas]` or `mlrm[polars]`")


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of notes: `ids`, `values` [notes, dim] in f32 and, where the file has them, `visual` ones."""

    ids: list[str]
    values: np.ndarray
    visual: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)


def embeddings(file: str | os.PathLike) -> Embeddings:
    """Reads an embedding file of `mlrm embed`: `.npy`, `.safetensors`, or `.parquet` (with pyarrow or Polars). Those of
    eight bits a number are normalised; the others are as they are."""
    path = Path(file)
    readers = {".npy": _read_npy, ".safetensors": _read_safetensors, ".parquet": _read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path}: embedding files end in {', '.join(readers)}")
    ids, values, visual = reader(path)
    for array in (values, visual):
        if array is not None and (array.ndim != 2 or len(array) != len(ids)):
            raise ValueError(f"{path}: {len(ids)} ids, but numbers of shape {array.shape}")
    return Embeddings(ids, _numbers(values), None if visual is None else _numbers(visual))


def _numbers(values: np.ndarray) -> np.ndarray:
    if values.dtype != np.int8:
        return values.astype(np.float32)
    values = values.astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _read_npy(path: Path):
    ids = path.with_suffix(".ids.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    visual = path.with_suffix(".visual.npy")
    return ids, np.load(path), np.load(visual) if visual.exists() else None


def _read_safetensors(path: Path):
    kinds = {"F16": np.float16, "F32": np.float32, "F64": np.float64, "I8": np.int8, "U8": np.uint8}
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])

    def tensor(name):
        if name not in header:
            return None
        begin, end = header[name]["data_offsets"]
        values = np.frombuffer(data[start + begin:start + end], kinds[header[name]["dtype"]])
        return values.reshape(header[name]["shape"])

    ids = tensor("ids").tobytes().decode().rstrip("\n").split("\n")
    return ids, tensor("embeddings"), tensor("visual_embeddings")


def _read_parquet(path: Path):
    try:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(path)
        columns = {name: table[name].to_pylist() if name == "id" else
                   table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
                   for name in table.column_names}
    except ModuleNotFoundError:
        import polars

        table = polars.read_parquet(path)
        columns = {name: table[name].to_list() if name == "id" else table[name].to_numpy() for name in table.columns}
    return [str(id) for id in columns["id"]], columns["embedding"], columns.get("visual_embedding")


def _flat(row: dict, prefix: str = "") -> dict:
    """Fields of fields under names with dots; the strings that stand for numbers as numbers."""
    names = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    flat = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = names.get(value, value) if isinstance(value, str) else value
    return flat


def _toml_key(key: str) -> str:
    return ".".join(part if part.replace("_", "").replace("-", "").isalnum() else json.dumps(part) for part in key.split("."))


def _toml(value) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        fields = (f"{json.dumps(key, ensure_ascii=False)} = {_toml(field)}" for key, field in value.items())
        return "{" + ", ".join(fields) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, (int, float)):
        return repr(value)
    return json.dumps(os.fspath(value) if isinstance(value, os.PathLike) else value, ensure_ascii=False)
