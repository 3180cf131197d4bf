"""The worker's job, written with Quix Streams: frames in, predictions with T2 and Q out, as JSON lines.

    python -m tests.benchmarks.quix_job BROKER TOPIC OUT plsr|spectratr BANDS MESSAGES      (pip install quixstreams)

scikit-learn's PLS on pre-treated spectra, or SpectraTr in eager torch; a frame is one batch, as in Tamis. It does
less than a Tamis worker: no rejects, no drift detection, no trust limits. It ends after MESSAGES messages and prints
spectra per second, from the end of the first to the end of the last.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import orjson
import pyarrow as pa
from scipy.signal import savgol_filter

from .plant import spectra


def treated(x: np.ndarray) -> np.ndarray:
    """SNV, then the first derivative."""
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, ddof=1, keepdims=True)
    return np.asarray(savgol_filter(x, 15, 2, 1))


class Job:
    def __init__(self, kind: str, bands: int) -> None:
        from sklearn.cross_decomposition import PLSRegression

        train = spectra(300, bands)
        self.pls = PLSRegression(10, scale=False).fit(treated(train), train[:, 0])
        self.variance = self.pls.x_scores_.var(axis=0, ddof=1)
        self.kind, self.clock, self.seen, self.took_s = kind, 0.0, 0, 0.0
        if kind == "spectratr":
            import torch

            from tamis.models.spectratr import SpectraTr

            torch.set_num_threads(2)
            self.network = SpectraTr(bands).eval()

    def __call__(self, value: bytes) -> bytes:
        with pa.ipc.open_stream(value) as stream:
            table = stream.read_all()
        column = table["spectrum"].combine_chunks()
        x = column.flatten().to_numpy().reshape(len(table), -1).astype(np.float64)
        x = treated(x)
        if self.kind == "plsr":
            y = self.pls.predict(x).ravel()
        else:
            import torch

            with torch.inference_mode():
                y = self.network(torch.from_numpy(x.astype(np.float32))).numpy().ravel()
        scores = np.asarray(self.pls.transform(x))
        t2 = (scores**2 / self.variance).sum(axis=1)
        q = ((x - self.pls.inverse_transform(scores)) ** 2).sum(axis=1)
        names = table["spectrum_id"].to_pylist()
        now = time.monotonic()
        if self.clock:
            self.seen, self.took_s = self.seen + len(names), self.took_s + now - self.clock
        self.clock = now
        return b"\n".join(
            orjson.dumps({"spectrum_id": name, "y": value, "t2": a, "q": b})
            for name, value, a, b in zip(names, y.tolist(), t2.tolist(), q.tolist(), strict=True)
        )


def main() -> None:
    from quixstreams import Application  # pyright: ignore[reportMissingImports]

    broker, name, out, kind, bands, count = sys.argv[1:]
    app = Application(
        broker, consumer_group=f"quix-{out}", auto_offset_reset="earliest", loglevel="WARNING",
        consumer_extra_config={"fetch.message.max.bytes": 50_000_000, "max.partition.fetch.bytes": 50_000_000,
                               "receive.message.max.bytes": 1_000_000_000},
        producer_extra_config={"message.max.bytes": 50_000_000},
    )  # fmt: skip
    job = Job(kind, int(bands))
    frames = app.topic(name, value_deserializer="bytes")
    predictions = app.topic(out, value_serializer="bytes")
    app.dataframe(frames).apply(job).to_topic(predictions)
    app.run(count=int(count), timeout=60)
    print(f"{job.seen / job.took_s:.0f}", flush=True)


if __name__ == "__main__":
    main()
