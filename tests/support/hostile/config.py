"""Settings, from a file and from the environment."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from random import Random
from unittest import mock

from tamis.streamer.settings.load import load as load_settings
from tamis.streamer.settings.tables import Settings

from ..paths import ROOT
from .mutators import anything


def settings_seeds() -> list[bytes]:
    sample = (ROOT / "deploy" / "line.toml").read_bytes()
    uncommented = re.sub(rb"(?m)^# ?(?=[\w\[])", b"", sample)
    small = b'brokers = "a:1,b:2"\n[topics]\nprefix = "x"\n[lines.nir1]\nmodel = "a"\nruns = "Mon-Fri 06:00-22:00"\n'
    axes = b'[axes.a]\nunit = "nm"\nstart = 1000\nstop = 1600\nbands = 61\n[kafka]\nsecurity_protocol = "SSL"\n'
    return [
        b"",
        sample,
        uncommented,
        small + axes,
        small + b'\n#env\nTAMIS_GROUP=g\nTAMIS_TOPICS__PREFIX=y\nTAMIS_LINES={"a": {"model": "b"}}\n',
    ]


def strange_settings(case: bytes, rng: Random) -> bytes:
    lines = case.decode("utf-8", "replace").split("\n")
    tables = {name: field.default for name, field in Settings.model_fields.items()}
    name = rng.choice(list(tables))
    inner = getattr(type(tables[name]), "model_fields", None)
    key = (
        f"{name}.{rng.choice(list(inner))}"
        if inner
        else rng.choice((name, "lines.a.model", "axes.b.bands", "kafka.x", "axes.c"))
    )
    value = anything(rng)
    action = rng.random()
    if action < 0.15:
        lines.insert(0, f"{key} = {'[' * 3000}" if rng.random() < 0.3 else f"{key} = {'9' * 5000}")
    elif action < 0.6:
        lines.insert(0, f"{key} = {json.dumps(value)}".replace("NaN", "nan").replace("Infinity", "inf"))
    elif action < 0.9:
        if "#env" not in lines:
            lines.append("#env")
        shown = value if isinstance(value, str) else "[" * 50_000 if rng.random() < 0.05 else json.dumps(value)
        lines.append(f"TAMIS_{key.replace('.', '__').upper()}={shown}".replace("\n", " "))
    else:
        lines[rng.randrange(len(lines))] = rng.choice(lines)
    return "\n".join(lines).encode("utf-8", "replace")


def read_settings(case: bytes, folder: Path) -> None:
    text, _, variables = case.partition(b"\n#env\n")
    path = folder / "line.toml"
    path.write_bytes(text)
    found = re.findall(rb"(?m)^(TAMIS_[A-Za-z0-9_]+)=([^\x00\n]*)$", variables)
    given = {os.fsdecode(name): os.fsdecode(value) for name, value in found if name != b"TAMIS_CONFIG"}
    with mock.patch.dict(os.environ, given):
        settings = load_settings(path)
    settings.printable()
    settings.known_axes()
    assert settings.topics.spectra
