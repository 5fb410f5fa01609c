"""Settings: the order of the sources, the source of each value, and the texts of errors."""

from __future__ import annotations

from pathlib import Path

import pytest

from wavserve.app.settings import Settings
from wavserve.app.settings_sources import Given, Loaded, as_environment, load_settings
from wavserve.core.errors import SettingsError
from wavserve.core.verbs import MODELS


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "wavserve.toml"
    path.write_text('[http]\nport = 9001\nhost = "0.0.0.0"\n[sessions]\nttl_s = 5\n[record]\nfolder = "kept"\n')
    return path


def flag(key: str, text: str) -> Given:
    return Given(key, text, "flag --set")


def test_without_sources_every_value_is_the_default() -> None:
    loaded = load_settings(None, {})
    assert loaded.settings == Settings()
    assert set(loaded.sources.values()) == {"default"}
    assert [key for key, _, _ in loaded.rows()] == list(loaded.sources)


def test_later_sources_win_and_each_value_names_its_source(file: Path) -> None:
    environ = {"WAVSERVE_HTTP__PORT": "9002", "WAVSERVE_LOG__FORMAT": "json", "PATH": "/bin"}
    loaded = load_settings(file, environ, [Given("http.port", "9003", "flag --http-port")])
    assert (loaded.settings.http.port, loaded.sources["http.port"]) == (9003, "flag --http-port")
    assert (loaded.settings.http.host, loaded.sources["http.host"]) == ("0.0.0.0", f"file {file}")
    assert (loaded.settings.log.format, loaded.sources["log.format"]) == ("json", "environment WAVSERVE_LOG__FORMAT")
    assert (loaded.settings.grpc.port, loaded.sources["grpc.port"]) == (Settings().grpc.port, "default")
    assert loaded.settings.sessions.ttl_s == 5.0
    assert loaded.settings.record.folder == Path("kept")


def test_none_unsets_an_optional_value(file: Path) -> None:
    assert load_settings(file, {}, [flag("record.folder", "none")]).settings.record.folder is None


def test_the_environment_can_name_the_file(file: Path) -> None:
    loaded = load_settings(None, {"WAVSERVE_CONFIG": str(file)})
    assert loaded.sources["http.port"] == f"file {file}"


def test_the_bundle_folder_is_the_path_or_the_presets_folder() -> None:
    assert load_settings(None, {}, [flag("bundle.preset", "tiny")]).settings.bundle.folder == Path("bundles/tiny")
    assert load_settings(None, {}, [flag("bundle.path", "mine")]).settings.bundle.folder == Path("mine")


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().http.port = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("environ", "key", "text", "words"),
    [
        ({"WAVSERVE_HTP__PORT": "1"}, None, "", ["environment WAVSERVE_HTP__PORT", "unknown", "WAVSERVE_HTTP__PORT"]),
        ({}, "htp.prot", "1", ["flag --set", "unknown setting 'htp.prot'", "http.port"]),
        ({}, "record", "x", ["flag --set", "unknown setting 'record'", "record.folder"]),
        ({}, "zzz", "1", ["flag --set", "unknown setting 'zzz'", "config show"]),
        ({"WAVSERVE_HTTP__PORT": "many"}, None, "", ["environment WAVSERVE_HTTP__PORT", "integer", "'many'"]),
        ({}, "http.host", "1.2.3.4:80", ["http.host: expected an IPv4 or IPv6 address or a name", "'1.2.3.4:80'"]),
        ({}, "grpc.host", "", ["grpc.host: expected an IPv4 or IPv6 address or a name", "''"]),
        ({}, "grpc.port", "65536", ["flag --set: grpc.port", "expected less than or equal to 65535", "'65536'"]),
        (
            {},
            "backend.kind",
            "guess",
            ["flag --set: backend.kind", "expected 'auto', 'local', 'triton-embedded' or 'triton'", "'guess'"],
        ),
        ({}, "planner.slice_size", "0", ["planner.slice_size", "greater than or equal to 1", "'0'"]),
        ({}, "sessions.ttl_s", "inf", ["sessions.ttl_s", "finite", "'inf'"]),
        (
            {},
            "sessions.url",
            "redis+sentinel://a:1",
            ["sessions.url", "redis://HOST:PORT/DB", "Sentinel and cluster URLs"],
        ),
        ({}, "sessions.url", "redis://a:1,b:2", ["sessions.url", "redis://HOST:PORT/DB", "another text"]),
        ({}, "sessions.url", "redis://a:99999", ["sessions.url", "port is a number up to 65535", "another text"]),
        ({}, "sessions.timeout_s", "2", ["sessions.timeout_s", "less than or equal to 1.5", "'2'"]),
        ({}, "arena.num_slots", "1", ["arena.num_slots (flag --set)", "planner.slice_size", "got 1"]),
        ({}, "grpc.port", "8000", ["grpc.port (flag --set)", "http.port (default)", "got 8000"]),
    ],
)
def test_wrong_settings_are_refused(environ: dict[str, str], key: str | None, text: str, words: list[str]) -> None:
    flags = [flag(key, text)] if key else []
    refused(words, environ=environ, flags=flags)


def of_kubernetes(service: str, ports: dict[int, str]) -> dict[str, str]:
    """The variables that Kubernetes sets in every container beside a Service, as its documentation lists them."""
    name, address = service.upper().replace("-", "_"), "10.0.171.239"
    first = next(iter(ports))
    variables = {f"{name}_SERVICE_HOST": address, f"{name}_SERVICE_PORT": str(first)}
    variables[f"{name}_PORT"] = f"tcp://{address}:{first}"
    for port, port_name in ports.items():
        variables[f"{name}_SERVICE_PORT_{port_name.upper().replace('-', '_')}"] = str(port)
        for protocol in ("tcp", "udp", "sctp"):
            prefix = f"{name}_PORT_{port}_{protocol.upper()}"
            variables[prefix] = f"{protocol}://{address}:{port}"
            variables |= {f"{prefix}_PROTO": protocol, f"{prefix}_PORT": str(port), f"{prefix}_ADDR": address}
    return variables


@pytest.mark.parametrize("service", ["wavserve", "wavserve-grpc", "wavserve-http", "wavserve--blue", "wavserve-config"])
def test_the_variables_of_a_kubernetes_service_are_ignored_in_silence(service: str) -> None:
    loaded = load_settings(None, of_kubernetes(service, {8000: "http", 8001: "plan-grpc"}))
    assert loaded.settings == Settings()
    assert loaded.warnings == ()


@pytest.mark.parametrize(
    ("variable", "value", "nearest"),
    [
        ("WAVSERVE_HTTP_PORT", "9000", "WAVSERVE_HTTP__PORT"),
        ("WAVSERVE_BACKEND_KIND", "local", "WAVSERVE_BACKEND__KIND"),
        ("WAVSERVE_RECORD", "/tmp/x", "WAVSERVE_RECORD__FOLDER"),
        ("WAVSERVE_CONFIGS", "x.toml", "WAVSERVE_CONFIG"),
        ("WAVSERVE_ZZZ", "1", "wavserve config show"),
    ],
)
def test_a_variable_that_is_no_setting_is_ignored_with_one_warning(variable: str, value: str, nearest: str) -> None:
    loaded = load_settings(None, {variable: value})
    assert loaded.settings == Settings()
    [warning] = loaded.warnings
    assert variable in warning
    assert nearest in warning


def test_a_setting_with_a_value_of_kubernetes_is_still_a_setting() -> None:
    refused(["environment WAVSERVE_HTTP__PORT", "integer"], environ={"WAVSERVE_HTTP__PORT": "tcp://10.0.0.1:80"})


def test_a_wrong_value_is_refused_even_where_a_later_source_wins() -> None:
    refused(["environment WAVSERVE_HTTP__PORT"], environ={"WAVSERVE_HTTP__PORT": "x"}, flags=[flag("http.port", "1")])


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ('[http]\nport = "9000"', ["http.port", "valid integer", "'9000'"]),
        ("http = 3", ["unknown setting 'http'", "http.port"]),
        ("[http.deep]\nx = 1", ["unknown setting 'http.deep'"]),
        ("[record]\nfolder = 2020-01-01", ["record.folder", "a text, a number"]),
        ("[http", ["readable TOML"]),
    ],
)
def test_wrong_files_are_refused(tmp_path: Path, toml: str, words: list[str]) -> None:
    path = tmp_path / "wrong.toml"
    path.write_text(toml)
    refused([f"file {path}", *words], file=path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused([f"file {tmp_path / 'no.toml'}", "No such file"], file=tmp_path / "no.toml")


def refused(
    words: list[str], file: Path | None = None, environ: dict[str, str] | None = None, flags: list[Given] | None = None
) -> None:
    with pytest.raises(SettingsError) as caught:
        _: Loaded = load_settings(file, environ or {}, flags or [])
    for word in words:
        assert word in caught.value.message


def test_several_texts_are_given_in_one() -> None:
    given = load_settings(None, {"WAVSERVE_TRITON__URLS": "a:1, b:2"}).settings
    assert given.triton.urls == ("a:1", "b:2")
    assert load_settings(None, {}, [flag("triton.urls", "[0::1]:8001,B:2")]).settings.triton.urls == (
        "[::1]:8001",
        "b:2",
    )
    for wrong in (" , ", "foo", "http://a:1", "a:99999", "a:0", "a:1,a:1", ":5", "::1:8001", "a:1,A:1"):
        refused(["triton.urls: expected HOST:PORT", repr(wrong)], flags=[flag("triton.urls", wrong)])


def test_tritons_may_be_found_by_dns() -> None:
    given = load_settings(None, {}, [flag("triton.urls", "dns:///Triton:8001,a:1,dns://10.96.0.10/b:2")]).settings
    assert given.triton.urls == ("dns:///triton:8001", "a:1", "dns://10.96.0.10:53/b:2")
    for wrong in ("dns:///triton", "dns:triton:8001", "dns:///10.0.0.1:8001", "dns:///a:1,dns:///A:1"):
        refused(["triton.urls: expected HOST:PORT", "dns:///NAME:PORT"], flags=[flag("triton.urls", wrong)])


def test_gateways_are_names_or_a_name_in_dns() -> None:
    for given, names in (("a,b", ("a", "b")), ("dns:///Gateways", ("dns:///gateways",)), ("none", ())):
        assert load_settings(None, {}, [flag("triton.gateways", given)]).settings.triton.gateways == names
    for wrong in ("a,a", "dns:///gateways:8001", "dns:///10.0.0.1"):
        refused(["triton.gateways: expected NAME"], flags=[flag("triton.gateways", wrong)])


@pytest.mark.parametrize("key", ["http.host", "grpc.host"])
def test_a_host_may_be_written_in_brackets(key: str) -> None:
    loaded = load_settings(None, {}, [flag(key, "[::1]")])
    assert getattr(loaded.settings, key.partition(".")[0]).host == "::1"


def test_another_process_can_be_given_the_same_settings(tmp_path: Path) -> None:
    """The models of an embedded Triton get their settings this way, from their environment."""
    flags = [flag("triton.urls", "a:1,b:2"), flag("bundle.path", str(tmp_path)), flag("arena.lease_s", "1.5")]
    mine = load_settings(None, {}, flags)
    variables = as_environment(mine.settings, [key for key, _, _ in mine.rows()])
    assert load_settings(None, variables).settings == mine.settings
    assert variables["WAVSERVE_BACKEND__THREADS"] == "none"


def test_the_default_model_repository_is_the_projects() -> None:
    repository = Settings().triton.repository
    assert {folder.name for folder in repository.iterdir()} == set(MODELS)
    assert all((repository / model / "1" / "model.py").is_file() for model in MODELS)


def test_a_name_in_the_environment_forges_no_line() -> None:
    loaded = load_settings(None, {"WAVSERVE_X\n2026 ERROR forged\x1b[31m": "1"})
    assert "WAVSERVE_X\\n2026 ERROR forged\\x1b[31m: ignored" in loaded.warnings[0]
    for environ in ({"WAVSERVE_HTTP__X\nforged": "1"}, {"WAVSERVE_CONFIG": "a\nforged"}):
        with pytest.raises(SettingsError) as caught:
            load_settings(None, environ)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["top", "=top", "cam_high=", "a=top,a=wrist"])
def test_a_camera_table_has_a_name_and_a_camera_in_each_entry(text: str) -> None:
    with pytest.raises(SettingsError, match="NAME=CAMERA"):
        load_settings(None, {}, [flag("compat.aloha", text)])


def test_a_camera_table_may_be_text_or_a_list_and_none_unsets_it(tmp_path: Path) -> None:
    file = tmp_path / "own.toml"
    file.write_text('triton.urls = ["a:1", "b:2"]\ncompat.wav = ["0=top", "1=none"]\n')
    settings = load_settings(
        file, {"WAVSERVE_COMPAT__ALOHA": "a=b=top, c=wrist"}, [flag("compat.predict", "none")]
    ).settings
    assert settings.triton.urls == ("a:1", "b:2")
    assert settings.compat.wav == ("0=top", "1=none")
    assert (settings.compat.aloha, settings.compat.predict) == (("a=b=top", "c=wrist"), ())
    assert settings.compat.model_fields_set == {"wav", "aloha", "predict"}


@pytest.mark.parametrize(
    ("toml", "text", "value"), [('"on"', "on", "on"), ("true", "true", "on"), ("false", "False", "off")]
)
def test_a_switch_is_also_true_or_false(tmp_path: Path, toml: str, text: str, value: str) -> None:
    file = tmp_path / "own.toml"
    file.write_text(f"ui.enabled = {toml}\n")
    assert load_settings(file, {}).settings.ui.enabled == value
    for key in ("ui.enabled", "backend.compile", "backend.cuda_graphs"):
        settings = load_settings(None, {}, [flag(key, text)]).settings
        section, name = key.split(".")
        assert getattr(getattr(settings, section), name) == value
    with pytest.raises(SettingsError, match="'auto', 'on' or 'off'"):
        load_settings(None, {}, [flag("ui.enabled", "1")])


@pytest.mark.parametrize("text", ["robots.example:8000", "http://robots.example", "*.example"])
def test_the_names_of_the_page_are_names(text: str) -> None:
    assert load_settings(None, {}, [flag("ui.hosts", "A.example, b")]).settings.ui.hosts == ("a.example", "b")
    with pytest.raises(SettingsError, match="without ports"):
        load_settings(None, {}, [flag("ui.hosts", text)])


@pytest.mark.parametrize(
    "key", ["tracing.endpoint", "triton.urls", "http.host", "grpc.host", "ui.hosts", "http.port", "sessions.url"]
)
def test_no_refused_value_shows_a_password(key: str, tmp_path: Path) -> None:
    for url in ("http://u:s3cret@localhost:4318", "http://s3cret@h", "http://h/?token=s3cret"):
        (tmp_path / "own.toml").write_text(f'{key} = ["{url}"]')
        for file, flags in ((None, [flag(key, url)]), (tmp_path / "own.toml", []), (None, [flag(url, "1")])):
            with pytest.raises(SettingsError) as caught:
                load_settings(file, {}, flags)
            assert "s3cret" not in str(caught.value)
