from pathlib import Path

import pytest

from tamis import BadSettings
from tamis.streamer.settings.load import load
from tamis.streamer.settings.tables import Line, Log, Metrics, NamedAxis, Process, Settings, Topics


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [name for name in os.environ if name.startswith("TAMIS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "line.toml"
        path.write_text(text)
        return path

    return write


def test_the_command_line_outranks_the_environment_which_outranks_the_file(toml, monkeypatch) -> None:
    path = toml('brokers = "file:1"\ngroup = "file"\nstore = "file"\n[topics]\nprefix = "file"\npartitions = 7')
    monkeypatch.setenv("TAMIS_BROKERS", "env:1")
    monkeypatch.setenv("TAMIS_GROUP", "env")
    monkeypatch.setenv("TAMIS_TOPICS__PREFIX", "env")
    settings = load(path, {"brokers": "cli:1", "group": None})
    assert (settings.brokers, settings.group, settings.store) == ("cli:1", "env", "file")
    assert (settings.topics.spectra, settings.topics.partitions) == ("env.spectra", 7)


def test_the_environment_may_name_the_file(toml, monkeypatch) -> None:
    monkeypatch.setenv("TAMIS_CONFIG", str(toml('brokers = "named:1"')))
    assert load().brokers == "named:1"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("brokrs = 'x'", "unknown setting .*line.toml: brokrs; known: brokers, group"),
        ("[topics]\nprefx = 'x'", "unknown setting .*topics.prefx; known: prefix, create, partitions"),
        ("[lines.nir1]\nmodl = 'x'", "unknown setting .*lines.nir1.modl; known: model, saturation"),
        ("[axes.a]\nunit = 'nm'\nfrom = 1", "unknown setting .*axes.a.from; known: unit, values, start"),
        ("[axes.a]\nunit = 'nm'\nstart = 1", "axes.a: needs either values, or start, stop and bands"),
        ("[axes.a]\nunit = 'nm'\nvalues = [1, 3, 2]", "axes.a: an axis must ascend or descend"),
        ("[metrics]\nport = 99999", "metrics.port = 99999: input should be less than or equal to 65535"),
        ("[predictions]\nencoding = 'xml'", "predictions.encoding = 'xml': input should be 'arrow' or 'json'"),
        ("flush_timeout_s = -1", "flush_timeout_s = -1: input should be greater than 0"),
        ("poll_timeout_s = 1e300", "poll_timeout_s = 1e.300: input should be less than or equal to 10"),
        ("reload_s = inf", "reload_s = inf: input should be less than or equal to 3600"),
        ("reload_s = nan", "reload_s = nan: input should be"),
        ("[kafka]\nsasl_mechansim = 'PLAIN'", "unknown setting kafka.sasl_mechansim; similar: .*sasl_mechanism"),
        ("brokers = ", "expected TOML"),
        ("brokers = ' , '", "brokers: expected host:port, separated by commas"),
        ("brokers = 'kafka'", "host:port"),
        ("brokers = 'kafka:99999'", "host:port"),
    ],
)
def test_a_bad_file_is_refused_by_name(toml, text: str, words: str) -> None:
    with pytest.raises(BadSettings, match=words):
        load(toml(text))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("TAMIS_DIRFT", "1", "unknown setting TAMIS_DIRFT; known: TAMIS_BROKERS"),
        ("TAMIS_TOPICS__PREFX", "x", "unknown setting TAMIS_TOPICS__PREFX; known: prefix"),
        ("TAMIS_FLUSH_TIMEOUT_S", "lots", "TAMIS_FLUSH_TIMEOUT_S = 'lots': input should be a valid number"),
        ("TAMIS_LINES", "{", "lines.*expected JSON"),
        ("TAMIS_LINES", '{"a": {"modl": 1}}', "unknown setting TAMIS_LINES.*; known: model"),
    ],
)
def test_a_bad_variable_is_refused_by_name(monkeypatch, name: str, value: str, words: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings, match=words):
        load()


def test_all_faults_are_reported_at_once(toml) -> None:
    with pytest.raises(BadSettings) as error:
        load(toml("brokrs = 'x'\nreload_s = 'soon'\n[log]\nlevel = 'loud'"))
    assert len(str(error.value).splitlines()) == 3


def test_a_missing_file_is_named() -> None:
    with pytest.raises(BadSettings, match=r"cannot read the settings file /nowhere/x.toml: No such file"):
        load(Path("/nowhere/x.toml"))


def test_secrets_are_struck_out(monkeypatch) -> None:
    monkeypatch.setenv("TAMIS_KAFKA__SASL_PLAIN_PASSWORD", "hunter2")
    settings = load()
    assert settings.kafka["sasl_plain_password"] == "hunter2"
    assert "hunter2" not in str(settings.printable())
    assert "hunter2" not in repr(settings)


def test_a_secret_of_the_wrong_kind_is_not_shown_either(toml) -> None:
    with pytest.raises(BadSettings) as error:
        load(toml('kafka = "sasl_plain_password=hunter2"'))
    assert "hunter2" not in str(error.value)


def test_a_line_without_a_table_takes_the_star(toml) -> None:
    settings = load(toml("[lines.nir1]\nmodel = 'a'\n[lines.'*']\nmodel = 'b'"))
    assert [settings.line(name).model for name in ("nir1", "nir2")] == ["a", "b"]  # type: ignore[union-attr]
    only = load(toml("[lines.nir1]\nmodel = 'a'"))
    assert only.line("nir2") is None


def test_the_sample_shows_every_setting_with_its_default(root: Path) -> None:
    sample = root / "deploy" / "line.toml"
    assert load(sample).model_dump() == load().model_dump()
    text = sample.read_text()
    tables = {"topics": Topics, "lines": Line, "axes": NamedAxis, "process": Process, "log": Log, "metrics": Metrics}
    for table in (Settings, *tables.values()):
        for name in table.model_fields:
            assert name in text, f"deploy/line.toml does not show {name}"
