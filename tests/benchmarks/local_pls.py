"""Local PLS against a loop over ikpls with the same neighbours and weights, in one run on one thread.

    python -m tests.benchmarks.local_pls      (pip install ikpls)

10,000 x 700 training spectra, k 200, 15 latent variables. The two take turns; the ratio of each turn is printed, with
the largest difference between their predictions; then two threads against one.
"""

from __future__ import annotations

import statistics
import time

import numpy as np

from tamis.models.pls import LocalPLS

N, BANDS, K, COMPONENTS, TURNS = 10_000, 700, 200, 15, 5
OURS, THEIRS = 400, 80  # queries a turn


def simulated(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    along = np.linspace(0, 1, BANDS)
    shapes = np.exp(-0.5 * ((along - np.linspace(0, 1, 20)[:, None]) / 0.05) ** 2)
    content = rng.uniform(0, 1, (n, 20))
    return content @ shapes + rng.normal(0, 1e-3, (n, BANDS)), content[:, 0] + 0.5 * content[:, 1] ** 2


def main() -> None:
    from ikpls.numpy import PLS
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)

    X, y = simulated(N, 0)
    queries, _ = simulated(OURS, 1)
    model = LocalPLS(COMPONENTS, K).fit(X, y)
    model.predict(queries[:2])  # compiles the kernel
    rows, _, weights = model.neighbourhood(queries)

    def ikpls_loop() -> np.ndarray:
        predicted = np.empty((THEIRS, COMPONENTS))
        for i in range(THEIRS):
            local = PLS(algorithm=1, scale_X=False, scale_Y=False)
            local.fit(X[rows[i]], y[rows[i]], COMPONENTS, weights[i])
            predicted[i] = local.predict(queries[i : i + 1])[:, 0, 0]
        return predicted

    def rate(call, n: int) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        result = call()
        return n / (time.perf_counter() - start), result

    ratios, gains = [], []
    for _ in range(TURNS):
        ours, predicted = rate(lambda: model.predict_components(queries), OURS)  # the search for neighbours included
        theirs, expected = rate(ikpls_loop, THEIRS)
        model.n_jobs = 2
        two, _ = rate(lambda: model.predict_components(queries), OURS)
        model.n_jobs = 1
        ratios.append(ours / theirs)
        gains.append(two / ours)
        difference = np.abs(predicted[:THEIRS] - expected).max()
        print(f"ours {ours:6.0f} queries/s  ikpls {theirs:5.0f}  ratio {ratios[-1]:4.1f}  difference {difference:.0e}"
              f"   two threads {two:6.0f}  x {gains[-1]:.2f}", flush=True)  # fmt: skip
    print(f"median: {statistics.median(ratios):.1f} times ikpls; two threads {statistics.median(gains):.2f} times one")


if __name__ == "__main__":
    main()
