from __future__ import annotations

import socket
from pathlib import Path

import pytest

from preceptor_services.__main__ import main
from preceptor_services.weights import weights_revision


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["judge", "--rubrics=nan"], "judge: rubrics: 'nan' is neither a packaged set"),
        (["worker", "--engine.concurrency=many"], "engine.concurrency: Input should be a valid integer"),
        (["rewrite", "--engine.uri=http://x"], "engine.uri: Extra inputs are not permitted"),
        (["judge", "--config", "/no/such.yaml"], "cannot read the configuration /no/such.yaml"),
        (["judge", "engine.urls=x"], "write it as --section.key=value"),
        (["judge", "--engine.urls=redis://x"], "engine.urls"),
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
