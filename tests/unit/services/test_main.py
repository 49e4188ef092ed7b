from __future__ import annotations

import socket
from pathlib import Path

import pytest

from preceptor_client.keys import add_key
from preceptor_services.__main__ import main
from preceptor_services.serving import is_loopback
from preceptor_services.weights import weights_revision

pytestmark = pytest.mark.usefixtures("kept_logging")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "--rubrics=nan"], "judge: rubrics: 'nan' is neither a packaged set"),
        (["worker", "--engine.concurrency=many"], "engine.concurrency: Input should be a valid integer"),
        (["rewrite", "--engine.uri=http://x"], "engine.uri: there is no such key"),
        (["rewrite", "--rewriting.seed=-1"], "rewriting.seed: Input should be greater than or equal to 0"),
        (["judge", "--config", "/no/such.yaml"], "cannot read the configuration /no/such.yaml"),
        (["judge", "engine.urls=x"], "write it as --section.key=value"),
        (["judge", "--engine.urls=redis://x"], "engine.urls"),
        (["judge", "--engine.urls=http://teacher:99999"], "engine.urls.0: Port out of range"),
        (["judge", "--engine.urls=http://[::1"], "engine.urls.0: Invalid IPv6 URL"),
        (["judge", "--engine.urls=http://u:p@x", "--engine.api_key=k"], "engine: api_key cannot go with a user"),
        (["judge", "--port", "70000"], "judge: cannot listen at 127.0.0.1:70000: ports go from 0 to 65535"),
    ],
)
def test_a_wrong_setting_ends_with_its_name_and_no_traceback(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("service", ["judge", "rewrite", "worker"])
def test_a_port_that_is_taken_is_named(service: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = [f"--queue.metrics_port={port}"] if service == "worker" else ["--port", str(port)]
        assert main([service, *where, "--engine.urls=http://127.0.0.1:9"]) == 2
    assert f"{service}: cannot listen at 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("service", ["judge", "rewrite"])
def test_beyond_loopback_a_service_asks_for_keys(
    service: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [service, "--host", "0.0.0.0", "--engine.urls=http://127.0.0.1:9"]
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert f"{service}: --host 0.0.0.0 can be reached from other machines" in shown
    assert "preceptor keys add" in shown
    keys_file = tmp_path / "keys.yaml"
    assert main([*arguments, f"--auth.keys_file={keys_file}"]) == 2
    assert f"{service}: cannot read the keys file {keys_file}" in capsys.readouterr().err
    add_key(keys_file, "alice")
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main([*arguments, "--port", port, f"--auth.keys_file={keys_file}"]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_the_worker_may_show_its_health_anywhere(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:
        where = ["--queue.metrics_host=0.0.0.0", f"--queue.metrics_port={taken.getsockname()[1]}"]
        assert main(["worker", *where, "--engine.urls=http://127.0.0.1:9"]) == 2
    assert "Address already in use" in capsys.readouterr().err


def test_loopback_is_what_the_name_stands_for() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.9.1", "localhost", "::1")] == [True] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "192.0.2.1")] == [False] * 3


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "python -m preceptor_services judge --port" in capsys.readouterr().out


def test_a_revision_names_the_content_of_the_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    revision = weights_revision(str(tmp_path))
    assert revision.startswith("sha256:")
    assert weights_revision(str(tmp_path)) == revision
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert weights_revision(str(tmp_path)) != revision


def test_weights_that_are_not_here_have_no_known_revision(tmp_path: Path) -> None:
    assert {weights_revision(root) for root in (None, "org/model", str(tmp_path), "/no/such")} == {"unknown"}
