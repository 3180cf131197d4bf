"""The pytest plugin, as the tests of another project use it."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

THEIR_TEST = """
import numpy as np
import pytest
from contextlib import closing
from tamis.models.axis import Axis
from tamis.models.model import Model
from tamis.models.pls import PLSR
from tamis.models.preprocess import Pipeline
from tamis.streamer.messages.frame import Frame
from tamis.streamer.transport.kafka_sink import KafkaSink
from tamis.streamer.transport.client import ensure_topics
from tamis.streamer.transport.kafka_source import KafkaSource

axis = Axis(np.linspace(900, 1700, 81), "nm")
spectra = np.random.default_rng(0).normal(1.0, 0.1, (30, 81)).cumsum(axis=1)

@pytest.fixture
def line(tamis_line):
    line = tamis_line(lines={"belt": {"model": "fat", "saturation": 1000.0}})
    model = Model.fit(spectra, axis, spectra[:, :1], ["fat"], pipeline=Pipeline.parse("snv"), estimator=PLSR(2))
    line.publish(model, "fat")
    return line

def frame(**changes):
    parts = dict(line="belt", instrument="cam", axis=axis, quantity="absorbance", spectra=spectra[:3].astype("f4"),
                 spectrum_id=["a", "b", "c"], time=np.full(3, np.datetime64("NaT", "us")))
    return Frame(**{**parts, **changes})

def test_my_line_predicts(line):
    line.arrives(frame())
    assert [row["spectrum_id"] for row in line.run().predictions] == ["a", "b", "c"]

def test_my_line_rejects_saturated_spectra(line):
    line.arrives(frame(spectra=np.full((3, 81), 1000.0, "f4")), b"noise")
    line.run()
    assert line.predictions == []
    assert len(line.rejected) == 2
    assert line.committed == 2

def test_a_real_broker(tamis_broker):
    settings = dict(client_settings=tamis_broker.client_settings)
    ensure_topics(tamis_broker.bootstrap, ["mine"], 1, create=True, **settings)
    with closing(KafkaSink(tamis_broker.bootstrap, **settings)) as sink:
        sink.send("mine", b"hello")
        sink.flush(10)
    with closing(KafkaSource(tamis_broker.bootstrap, ["mine"], "g", **settings)) as source:
        records = []
        while not records:
            records = source.poll(0.5)
    assert records[0].value == b"hello"

def test_a_broker_by_capability(tamis_broker_with):
    assert tamis_broker_with("transactions").kind == "noida"
    assert tamis_broker_with("failover").kind == "tansu"
    tamis_broker_with("transactions", "failover")
"""


def test_the_fixtures_serve_another_project(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(THEIR_TEST)
    result = pytester.runpytest_subprocess("-rs")
    result.assert_outcomes(passed=3, skipped=1)
    result.stdout.fnmatch_lines(["*no embedded broker has transactions, failover; tamis_broker_kind = kafka would*"])


THEIR_KAFKA = """
def test_both_are_kafka(tamis_broker, tamis_broker_with, tamis_kafka):
    assert tamis_broker is tamis_broker_with("transactions", "failover") is tamis_kafka
    assert tamis_broker.kind == "kafka"
"""


@pytest.mark.slow
@pytest.mark.usefixtures("tamis_kafka")  # skips where it cannot be had
def test_the_brokers_are_apache_kafka_if_the_settings_say_so(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(THEIR_KAFKA + THEIR_TEST[: THEIR_TEST.index("def test_a_broker_by_capability")])
    pytester.makeini("[pytest]\ntamis_broker_kind = kafka")
    pytester.runpytest_subprocess("-k", "both or real").assert_outcomes(passed=2, deselected=2)


def test_an_unknown_kind_of_broker_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(THEIR_KAFKA)
    pytester.makeini("[pytest]\ntamis_broker_kind = rabbit")
    result = pytester.runpytest_subprocess()
    result.stdout.fnmatch_lines(["*tamis_broker_kind = rabbit: expected embedded or kafka*"])
