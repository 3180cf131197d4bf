"""What sends spectra to a line: `tamis replay` and `tamis simulate`."""

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from ... import BadSettings
from ..services.stop import Stop
from .options import BrokerOptions, CameraFileOptions, command, new_app, pairs, refusing

app = new_app()


@command(app)
def replay(
    files: Annotated[list[Path], Argument(help="Spectra: files, folders, or patterns such as 'scans/*.spc'.")],
    *,
    rate: Annotated[float | None, Option(min=1e-3, max=1e9, help="Spectra per second; default: no limit.")] = None,
    realtime: Annotated[bool, Option("--realtime", help="Keep the recorded time between spectra.")] = False,
    loop: Annotated[bool, Option("--loop", help="Start again at the end.")] = False,
    limit: Annotated[int | None, Option(min=1, help="Stop after this many spectra.")] = None,
    resume: Annotated[str | None, Option(help="A name; continues where the replay of that name stopped.")] = None,
    frame: Annotated[int | None, Option(min=1, help="Spectra per message; default 256, or 0.1 s at --rate.")] = None,
    line: Annotated[str | None, Option(help="The line's name; else from the file, or 'unknown'.")] = None,
    instrument: Annotated[str | None, Option(help="The instrument's name, whatever the file says.")] = None,
    encoding: Annotated[Literal["arrow", "raw", "json"], Option(help="raw has no ids and no times.")] = "arrow",
    sent_as: Annotated[Literal["white", "dark"] | None, Option("--as", help="Send a camera reference.")] = None,
    report: Annotated[Path | None, Option(help="Write an HTML report of the belt and its decisions.")] = None,
    file_options: CameraFileOptions,
    broker_options: BrokerOptions,
) -> None:
    """Send recorded spectra to a line as if measured now.

    \b
    Examples:
      tamis replay tablets.parquet --line nir1 --rate 500
      tamis replay monday.csv.gz tuesday.csv.gz --axis-unit nm --realtime
      tamis replay line.parquet --loop --limit 1000000
      tamis replay cube.hdr --white white.hdr --dark dark.hdr --rate 96000
      tamis replay cube.hdr --rate 5760 --line belt --report belt.html
      tamis replay white.hdr --as white --line belt --quantity counts
    """
    if rate is not None and realtime:
        raise BadSettings("--rate and --realtime exclude each other: give one")
    if resume is not None and not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", resume):
        raise BadSettings(f"--resume: expected a name of letters, digits, '.', '_' and '-', got {resume[:40]!r}")
    stop = Stop()
    settings = broker_options.settings()
    from ..tools.replay import ReplayOptions, replay_to_kafka

    frame_spectra = frame or (256 if rate is None else max(1, min(256, round(rate / 10))))
    reading = file_options.reading(line=line, instrument=instrument, frame_spectra=frame_spectra)
    options = ReplayOptions(
        rate=rate,
        realtime=realtime,
        loop=loop,
        limit=limit,
        resume=resume,
        sent_as=sent_as or "",
        encoding=encoding,
        reading=reading,
    )
    if report is None:
        print(replay_to_kafka(settings, files, options, stop).summary(rate))
        return
    from markupsafe import Markup

    from ..files.frames import read_frames
    from ..pages.belt_map import MAX_SCAN_LINES, BeltMap
    from ..pages.charts import page_of, refuse_unwritable, write_page
    from ..tools.view import following, settle

    refuse_unwritable(report)
    if line is None:  # other lines may run meanwhile
        line = next((frame.line for frame in read_frames(files[0], reading)), None)
    belt = BeltMap(line, MAX_SCAN_LINES)
    with following(settings, belt) as trouble:
        summary = replay_to_kafka(settings, files, options, stop).summary(rate)
        print(summary, flush=True)
        settle(belt, stop)
        if trouble():
            print(f"the report may be incomplete: {trouble()}", file=sys.stderr)
    title = f"Belt: {', '.join(path.name for path in files)}"
    drawn = Markup(belt.html())  # noqa: S704 (its template has escaped every text)
    write_page(page_of(title, [drawn], subtitle=f"{summary}."), report)
    seen = f"{belt.decided} objects decided" if belt.decided else f"{belt.spectra} predictions, no decisions"
    hint = "" if belt.spectra else "; does a worker run, and know this line? `tamis tail --rejects` shows its rejects"
    print(f"{report}: {seen}{hint}")


@command(app)
def simulate(
    out: Annotated[Path | None, Argument(help="A .parquet or .hdr file to write; else sent to Kafka.")] = None,
    *,
    seconds: Annotated[float, Option(min=0.1, max=86_400, help="How long the belt runs.")] = 10.0,
    materials: Annotated[Path | None, Option(help="A file of spectra, or earthlib; else built-in polymers.")] = None,
    label: Annotated[str | None, Option(help="Column of material names; label, or earthlib's LEVEL_2.")] = None,
    pixels: Annotated[int, Option(help="Pixels across the belt.")] = 320,
    lines: Annotated[float, Option(help="Scan lines per second.")] = 300.0,
    objects: Annotated[float, Option(help="Objects per second.")] = 20.0,
    size: Annotated[float, Option(help="Mean size of an object, in pixels.")] = 24.0,
    new: Annotated[list[str] | None, Option(help="MATERIAL=SECOND: absent before that. May be repeated.")] = None,
    noise: Annotated[float, Option(help="Standard deviation of the noise of reflectance.")] = 0.003,
    lamp: Annotated[float, Option(help="Share of its light that the lamp loses per hour.")] = 0.0,
    shift: Annotated[float, Option(help="Drift of the wavelengths, nm per hour.")] = 0.0,
    whole: Annotated[bool, Option("--whole", help="Include pixels of the empty belt.")] = False,
    counts: Annotated[bool, Option("--counts", help="Write counts, NAME.white.hdr and NAME.dark.hdr.")] = False,
    sensors: Annotated[bool, Option("--sensors", help="Colour and height too; black objects, laminates.")] = False,
    batch: Annotated[int, Option(min=1, help="Scan lines per message.")] = 8,
    truth: Annotated[Path | None, Option(help="Write the objects and their materials to this CSV.")] = None,
    line: Annotated[str, Option(help="The line's name.")] = "belt",
    seed: Annotated[int, Option(min=0, help="Random seed.")] = 0,
    broker_options: BrokerOptions,
) -> None:
    """Simulate a belt of objects under a line camera. Writes a file, or sends to Kafka at the camera's pace.

    \b
    Examples:
      tamis simulate belt.parquet --seconds 20
      tamis simulate --seconds 600 --truth truth.csv --lamp 0.1 --new PVC=300
      tamis simulate belt.parquet --materials plastics.parquet --pixels 64
      tamis simulate belt.parquet --materials earthlib --label LEVEL_3
      tamis simulate cube.hdr --seconds 5 --counts
      tamis simulate belt.parquet --seconds 20 --sensors
    """
    if counts and (out is None or out.suffix != ".hdr"):
        raise BadSettings("--counts needs a cube: name a .hdr file to write")
    if sensors and out is not None and out.suffix == ".hdr":
        raise BadSettings("--sensors: a cube holds one sensor; name a .parquet file to write")
    stop = Stop()
    settings = broker_options.settings()
    from ..tools.materials import spectra_of
    from ..tools.simulate import SimulatedBelt, write_file

    with refusing():
        spectra, axis = spectra_of(materials, label)
        belt = SimulatedBelt(
            axis=axis, materials=spectra, pixels=pixels, lines_per_s=lines, objects_per_s=objects, size_px=size,
            new={name: float(at_s) for name, at_s in pairs(new, "--new").items()}, noise=noise, lamp_per_h=lamp,
            shift_nm_per_h=shift, foreground=not whole, sensors=sensors, line=line, seed=seed,
        )  # fmt: skip
    placed, asked = len(belt.objects(seconds)), round(seconds * objects)
    if placed < 0.6 * asked:  # before the minutes that the simulation takes
        others = f"the others do not fit side by side on {pixels} pixels"
        hint = "use more --pixels or --lines, or a smaller --size"
        print(f"{placed} of {asked} objects: {others}; {hint}", file=sys.stderr)
    if out is not None:
        print(write_file(out, belt, seconds, batch, counts=counts, truth=truth))
        return
    from ..tools.live import send_belt

    sent = send_belt(settings, stop, belt, seconds, batch, truth)
    behind = f"; up to {sent.behind_s:.2f} s behind the camera" if sent.behind_s > 0.5 else ""
    print(f"sent {sent.spectra} spectra in {sent.frames} frames, {sent.seconds:.1f} s{behind}")
