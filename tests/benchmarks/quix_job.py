"""The worker's job, written with Quix Streams: frames in, predictions with T2 and Q out, as JSON lines.

    python -m tests.benchmarks.quix_job BROKER TOPIC OUT plsr|spectratr BANDS MESSAGES      (pip install quixstreams)

scikit-learn's PLS on pre-treated spectra, or SpectraTr in eager torch; a message's float32 spectra are one batch. It
does less than a Tamis worker: no rejects, no drift detection, no trust limits. Each result carries the time when it was
made, not that of its source. It ends after MESSAGES messages.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import orjson
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
        self.kind, self.bands = kind, bands
        if kind == "spectratr":
            import torch

            from tamis.models.spectratr import SpectraTr

            torch.set_num_threads(2)
            self.network = SpectraTr(bands).eval()

    def __call__(self, value: bytes) -> bytes:
        x = treated(np.frombuffer(value, np.float32).reshape(-1, self.bands).astype(np.float64))
        if self.kind == "plsr":
            y = self.pls.predict(x).ravel()
        else:
            import torch

            with torch.inference_mode():
                y = self.network(torch.from_numpy(x.astype(np.float32))).numpy().ravel()
        scores = np.asarray(self.pls.transform(x))
        t2 = (scores**2 / self.variance).sum(axis=1)
        q = ((x - self.pls.inverse_transform(scores)) ** 2).sum(axis=1)
        return b"\n".join(
            orjson.dumps({"y": value, "t2": a, "q": b})
            for value, a, b in zip(y.tolist(), t2.tolist(), q.tolist(), strict=True)
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
    made = app.dataframe(frames).apply(job).set_timestamp(lambda *_: time.time_ns() // 1_000_000)
    made.to_topic(predictions)
    app.run(count=int(count), timeout=60)


if __name__ == "__main__":
    main()
