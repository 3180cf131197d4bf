"""Test, then train, on recorded files whose instrument changes on the way: does learning on the line ever do harm?

    python -m tests.benchmarks.stream [--draws 3]

Protocol, written down before the first figure was seen: the first instrument is the calibration (two thirds of its rows
have values). Each further instrument is predicted as a whole with what was known before; then 10 of its rows get their
values. `tamis` (a committee) and `tamis-plsr` are refitted if the gate allows it, the static models never, `plsr` and
`local-pls` always. The milk values cannot be learned from these spectra: a control in which nothing should happen.
"""

from __future__ import annotations

import argparse

from tamis.streamer.studies.comparison import compare
from tamis.streamer.studies.tables import STREAM_HEADINGS, summary
from tamis.streamer.studies.tasks import CompareOptions

from .page import ROOT, put

DATA = ROOT.parent / "shared" / "data"
MODELS = ("tamis", "tamis-static", "tamis-plsr", "plsr-static", "plsr", "local-pls")
FILES = {  # file: the column of the instruments, of the objects, and the responses
    "tablets_idrc2002_2instruments.parquet": ("instrument", "sample_id", ("assay",)),
    "corn_3instruments.parquet": ("instrument", "sample_id", ("moisture", "oil", "protein", "starch")),
    "milk_inline_tubes.parquet": ("sensor", None, ("fat_percent", "protein_percent", "lactose_percent")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--draws", type=int, default=3)
    asked = parser.parse_args()
    lines = [f"| response | {' | '.join(STREAM_HEADINGS)} |", "|---" * (len(STREAM_HEADINGS) + 1) + "|"]
    for file, (stream, group, targets) in FILES.items():
        for target in targets:
            options = CompareOptions(
                files=[DATA / file],
                targets=[target],
                models=MODELS,
                stream=stream,
                labels=[10],
                seeds=asked.draws,
                group=group,
            )
            name = f"{file.partition('_')[0]}, {target.removesuffix('_percent')}"
            for row in summary(compare(options), target, 10).rows:
                lines.append(f"| {name} | {' | '.join(row)} |")
                print(lines[-1], flush=True)
    put(
        "stream",
        f"""## Another instrument on the line: test, then train

Written by `python -m tests.benchmarks.stream`; the protocol is in its docstring. Means over {asked.draws} draws of
labels. Backward transfer and forgetting are changes of RMSEP, in the response's unit.

{chr(10).join(lines)}
""",
    )


if __name__ == "__main__":
    main()
