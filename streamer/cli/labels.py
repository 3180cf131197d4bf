"""`tamis labels`: laboratory values by hand, and what became of each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from ... import BadSettings
from ..services.stop import Stop
from .options import ServiceOptions, command, new_app, tell, values_by_name

if TYPE_CHECKING:
    from ..messages.labels import Label
    from ..services.label_log import GivenValue
    from ..settings.tables import Settings

app = new_app(help="Give laboratory values by hand, and see what became of each.")

SpectrumId = Annotated[str, Argument(help="As the spectrum was sent.")]
Line = Annotated[str, Option(help="Of the spectrum: needed where ids of several lines are the same.")]
Instrument = Annotated[str, Option(help="Of the spectrum: needed where a line has several with the same ids.")]
Time = Annotated[str | None, Option(help="When it was measured, or its day: needed where ids start anew each day.")]
Wait = Annotated[float, Option(min=0.0, max=3600.0, help="Seconds to wait for what becomes of the values.")]


@command(app)
def add(
    spectrum_id: Annotated[
        str, Argument(help="As the spectrum was sent; or a lot's name; or a file: CSV, TSV, .xlsx or Parquet.")
    ],
    values: Annotated[list[str] | None, Argument(help="TARGET=VALUE, such as fat=10.3; of a lot CLASS=SHARE.")] = None,
    *,
    unit: Annotated[list[str] | None, Option(help="Of all values, or TARGET=UNIT. Repeatable.")] = None,
    key: Annotated[str | None, Option(help="Of a file: the column with the spectrum_ids.")] = None,
    encoding: Annotated[str | None, Option(help="Of a file of text, such as windows-1252.")] = None,
    line: Line = "",
    instrument: Instrument = "",
    time: Time = None,
    since: Annotated[str | None, Option("--from", help="Of a lot: the first moment of its spectra.")] = None,
    to: Annotated[str | None, Option("--to", help="Of a lot: the last one.")] = None,
    wait: Wait = 0.0,
    service_options: ServiceOptions,
) -> None:
    """Send laboratory values to the trainer: one spectrum's, a lot's, or a laboratory's file. Each value is sent once:
    a file that is sent again confirms nothing.

    \b
    Examples:
      tamis labels add a1 fat=10.3 --line nir1
      tamis labels add a1 fat=103 --unit g/kg --wait 30
      tamis labels add week-18.csv --key sample
      tamis labels add L7 PET=30 PE=70 --line belt --from 2026-01-31T06:00 --to 2026-01-31T07:10
    """
    from ..tools import labels as tool

    settings = service_options.settings()
    which = tool.Which.said(line, instrument, time, since, to)
    expected = tool.expected_of(settings)
    if values:
        units = _units(unit, [text.partition("=")[0] for text in values])
        given = [tool.label_of_words(spectrum_id, values, units, which, expected)]
    elif Path(spectrum_id).exists():
        units = _units(unit, [] if expected is None else list(expected.names))
        given, notes = tool.labels_of_file(Path(spectrum_id), key, encoding, units, which, expected)
        for note in notes:
            tell(note)
    else:
        raise BadSettings(f"expected TARGET=VALUE after {spectrum_id!r}, or a file of that name: there is none")
    tool.checked(given, expected)
    given = tool.as_shares(given, expected)
    for sentence in tool.already_given(given, expected, _log(settings).values()):
        tell(sentence)
    signed = [tool.signed(label, confirms=False) for label in given]
    tool.send(settings, signed)
    count = sum(len(label.values) for label in signed)
    lots = sum(label.is_lot for label in signed)
    of = f"lots: {lots}" if lots else f"spectra: {len(signed)}"
    print(f"sent to {settings.topics.labels}: values: {count}, {of}")
    _report(settings, signed, wait)


@command(app, "list")
def list_values(
    *,
    held: Annotated[bool, Option("--held", help="Only those that are held.")] = False,
    limit: Annotated[int, Option(min=1, help="So many of the newest.")] = 20,
    service_options: ServiceOptions,
) -> None:
    """List the newest laboratory values and what became of each. Separated by tabs below their names, the newest last.

    \b
    Examples:
      tamis labels list --limit 100
      tamis labels list --held
    """
    settings = service_options.settings()
    values = _log(settings)
    found = [one for one in values.values() if one.became == "held" or not held]
    if not found:
        what = "held values" if held else "laboratory values"
        print(f"no {what} in {values.path}, which the trainer writes (trainer.folder)")
    else:
        print("\t".join(LISTED))
    for one in found[-limit:]:
        print(_line(one))


@command(app)
def retract(
    spectrum_id: SpectrumId,
    targets: Annotated[list[str] | None, Argument(help="Which values; all of the spectrum's if none is named.")] = None,
    *,
    reason: Annotated[str, Option(help="For the log.")] = "",
    line: Line = "",
    instrument: Instrument = "",
    time: Time = None,
    service_options: ServiceOptions,
) -> None:
    """Take values out again. A version that has learned one of them is no longer served. A lot is named as in the
    list: 'lot L7'.

    \b
    Examples:
      tamis labels retract a1 fat --reason 'sample mixed up'
      tamis labels retract 'lot L7' --line belt
    """
    import numpy as np

    from ..messages.labels import UNKNOWN_TIME, Retraction
    from ..tools import labels as tool

    settings = service_options.settings()
    when = UNKNOWN_TIME if time is None else tool.local_time(time)
    who, now = tool.who_am_i(), np.datetime64("now", "us")
    tool.send(settings, [], [Retraction(spectrum_id, tuple(targets or ()), line, instrument, when, who, now, reason)])
    print(f"sent the retraction of {', '.join(targets or ['all values'])} of {spectrum_id} to {settings.topics.labels}")
    _report(settings, [], 0.0)


@command(app)
def confirm(
    spectrum_id: SpectrumId,
    values: Annotated[list[str] | None, Argument(help="TARGET or TARGET=VALUE; every held one if not given.")] = None,
    *,
    line: Line = "",
    instrument: Instrument = "",
    time: Time = None,
    wait: Wait = 0.0,
    service_options: ServiceOptions,
) -> None:
    """Confirm a held value, so that it is believed. It has to be the value that was given; a value without a number is
    looked up in the trainer's log.

    \b
    Examples:
      tamis labels confirm a1 fat
      tamis labels confirm a1 fat=13.2 --line nir1
    """
    from ..tools import labels as tool

    settings = service_options.settings()
    which = tool.Which.said(line, instrument, time)
    label = tool.confirmed(spectrum_id, values or [], which, _log(settings))
    signed = [tool.signed(label, confirms=True)]
    tool.send(settings, signed)
    given = ", ".join(f"{target} = {value:g}" for target, value in label.values.items())
    print(f"sent the confirmation of {given} of {spectrum_id} to {settings.topics.labels}")
    _report(settings, signed, wait)


def _units(given: list[str] | None, targets: list[str]) -> dict[str, str]:
    named = values_by_name([text for text in given or [] if "=" in text], "--unit")
    of_all = [text for text in given or [] if "=" not in text]
    if len(of_all) > 1 or any(len(texts) > 1 for texts in named.values()):
        raise BadSettings("--unit: expected one unit of each target; nothing was sent")
    if targets and (strange := [name for name in named if name not in targets]):
        raise BadSettings(
            f"--unit names {strange[0]!r}, which has no value here ({', '.join(targets)}); nothing was sent"
        )
    return {target: unit for unit in of_all for target in targets} | {name: texts[0] for name, texts in named.items()}


def _log(settings: Settings):
    from ..services.label_log import LabelLog

    return LabelLog(Path(settings.trainer.folder))


LISTED = ("given", "by", "line", "spectrum", "value", "what became of it")


def _line(one: GivenValue) -> str:
    from ..messages.labels import LOT

    where = "/".join(filter(None, (one.line, one.instrument))) or "-"
    digits = 3 if one.spectrum_id.startswith(LOT) and "=" in one.target else 6  # a share of a class
    value = f"{one.value:.{digits}g}" if isinstance(one.value, float | int) else str(one.value or "-")
    what = f"{one.target} = {value}" if one.target else "-"
    became = f"{one.became}: {one.reason}" if one.reason else one.became
    return "\t".join((f"{one.given[:19]}Z", one.who or "-", where, one.spectrum_id or "-", what, became))


def _report(settings: Settings, signed: list[Label], wait: float) -> None:
    """What became of the values, or why nobody takes them; exits with 1 if one was rejected or not taken in time."""
    from ..tools import labels as tool

    if silence := tool.trainer_silence(settings):
        tell(silence)
    if not wait:
        return
    failed = False
    for label, target, one in tool.became(_log(settings), signed, wait, Stop()):
        failed |= one is None or one.became == "rejected"
        print(_line(one) if one else f"{target} of {label.spectrum_id}: not taken by a trainer in {wait:g} s")
    if failed:
        raise typer.Exit(1)
