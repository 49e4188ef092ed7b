"""Alerts and dashboards ask for what the running parts have, and say what they are said to."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy_promql import grouped_by, matchers_in, metrics_in
from pages import blocks
from scripts.metrics_page import VALUES, Family, services, trainer

ROOT = Path(__file__).parents[3]
PROMETHEUS = ROOT / "deploy" / "prometheus"
GRAFANA = ROOT / "deploy" / "grafana"
RULES = sorted((PROMETHEUS / "rules").glob("*.yml"))
PAGE = ROOT / "docs" / "observability.md"
VLLM = {
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:e2e_request_latency_seconds_bucket",
    "vllm:time_to_first_token_seconds_bucket",
}
REDIS = {
    "redis_memory_used_bytes",
    "redis_memory_max_bytes",
    "redis_commands_processed_total",
    "redis_connected_clients",
}
"""Of redis_exporter, 1.45 and newer."""
PROMETHEUS_OWN = {"up", "ALERTS"}
OF_EVERY_SERIES = {"job", "instance", "le"}
Promtool = Callable[..., str]


@pytest.fixture(scope="session")
def promtool() -> Promtool:
    """Prometheus' own checker, which set-up provides: its output, once it has found nothing wrong."""
    beside = Path(sys.executable).with_name("promtool")
    found = str(beside) if beside.exists() else shutil.which("promtool")
    assert found, "no promtool here: run `make setup`, or install your system's prometheus"

    def run(*arguments: str | Path) -> str:
        done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def own() -> dict[str, Family]:
    return {name: family for family in (*services(), *trainer()) for name in family.names}


def alerts() -> list[dict[str, Any]]:
    groups = [group for path in RULES for group in yaml.safe_load(path.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"]]


def dashboards() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((GRAFANA / "dashboards").glob("*.json"))]


def panels() -> list[dict[str, Any]]:
    return [panel for dashboard in dashboards() for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """PromQL and legend of every panel."""
    return [(target["expr"], target["legendFormat"]) for panel in panels() for target in panel["targets"]]


def expressions() -> list[str]:
    """Of everything, with Grafana's variables filled in."""
    found = [expr for expr, _ in queries()] + [rule["expr"] for rule in alerts()]
    return [expr.replace("$__rate_interval", "5m").replace("$trainer", ".*") for expr in found]


def test_every_expression_is_one(promtool: Promtool, tmp_path: Path) -> None:
    rules = [{"record": f"checked:{number}", "expr": expr} for number, expr in enumerate(expressions())]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_every_expression_asks_for_metrics_that_there_are() -> None:
    asked = {name for expr in expressions() for name in metrics_in(expr)}
    assert asked - VLLM - REDIS - PROMETHEUS_OWN <= own().keys()
    assert asked >= VLLM | REDIS, "a name in the lists is not used any more"


def test_every_matcher_names_a_label_and_a_value_that_its_metric_has() -> None:
    found = own()
    for matcher in (each for expr in expressions() for each in matchers_in(expr) if each.metric in found):
        if matcher.label in OF_EVERY_SERIES:
            continue
        labels = found[matcher.metric].labels
        assert matcher.label in labels, matcher
        values = labels[matcher.label] or set(re.split(r"[,;]? ", VALUES[matcher.label]))
        if matcher.label in ("code", "route"):
            continue
        assert set(matcher.value.split("|")) <= values, matcher


def test_labels_in_groupings_and_legends_are_there() -> None:
    found = own()
    for expr, legend in queries():
        labels = {label for name in metrics_in(expr) if name in found for label in found[name].labels}
        if metrics_in(expr) & found.keys():
            assert grouped_by(expr) <= labels | OF_EVERY_SERIES, expr
        shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
        kept = grouped_by(expr) or labels
        assert shown <= kept | ({"instance"} if not grouped_by(expr) else set()), (expr, legend)


def test_the_names_of_vllms_metrics_are_those_of_the_release_that_is_installed() -> None:
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM has an environment of its own here")
    source = (Path(spec.origin).parent / "v1" / "metrics" / "loggers.py").read_text(encoding="utf-8")
    missing = {name for name in VLLM if f'"{re.sub("_(total|bucket)$", "", name)}"' not in source}
    assert missing == set()


def test_the_configuration_and_its_rules_are_sound(promtool: Promtool) -> None:
    assert "valid prometheus config" in promtool("check", "config", PROMETHEUS / "prometheus.yml")


def test_every_alert_fires_on_what_it_is_for_and_not_otherwise(promtool: Promtool) -> None:
    files = sorted((PROMETHEUS / "tests").glob("*.yml"))
    promtool("test", "rules", *files)
    fires, is_quiet = set[str](), set[str]()
    for case in (case for file in files for case in yaml.safe_load(file.read_text())["tests"]):
        for checked in case["promql_expr_test"]:
            (name,) = re.findall(r'alertname="(\w+)"', checked["expr"])
            (fires if checked["exp_samples"] else is_quiet).add(name)
    assert fires == is_quiet == {rule["alert"] for rule in alerts()}


def test_the_operators_page_makes_prometheus_rules_of_the_alerts() -> None:
    [block] = [block for block in blocks(ROOT / "docs" / "operations.md") if "PrometheusRule" in block]
    command = ["bash", "-euc", f"kubectl() {{ cat; }}\n{block}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rules = [each for each in yaml.safe_load_all(made) if each]
    assert {each["kind"] for each in rules} == {"PrometheusRule"}
    assert [each["metadata"]["name"] for each in rules] == [f"preceptor-{path.stem}" for path in RULES]
    assert [each["spec"] for each in rules] == [yaml.safe_load(path.read_text()) for path in RULES]


def test_an_alert_that_is_wrong_is_noticed(promtool: Promtool, tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    (tmp_path / "tests").mkdir()
    rules = (PROMETHEUS / "rules" / "queue.yml").read_text()
    (tmp_path / "rules" / "queue.yml").write_text(rules.replace("> 300", "> 500"))
    (tmp_path / "tests" / "queue.yml").write_text((PROMETHEUS / "tests" / "queue.yml").read_text())
    with pytest.raises(AssertionError, match="QueueStuck"):
        promtool("test", "rules", tmp_path / "tests" / "queue.yml")


def test_alerts_have_a_severity_a_summary_and_a_line_in_the_runbook() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE)
    assert sorted(told) == sorted(rule["alert"] for rule in alerts())
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["summary"].endswith(".")


def test_the_dashboards_are_what_their_script_makes() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "grafana_dashboards.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{checked.stderr}\nrun scripts/grafana_dashboards.py"


def test_dashboards_and_panels_are_told_apart_and_every_panel_has_a_unit() -> None:
    assert len({dashboard["uid"] for dashboard in dashboards()}) == len(dashboards()) == 3
    for dashboard in dashboards():
        ids = Counter(panel["id"] for panel in dashboard["panels"])
        assert max(ids.values()) == 1
        squares = Counter(
            (x, y)
            for at in (panel["gridPos"] for panel in dashboard["panels"])
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        )
        assert max(squares.values()) == 1, "panels overlap"
        assert max(x for x, _ in squares) < 24
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}"


def test_grafana_finds_the_source_and_the_dashboards_where_it_is_told() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "preceptor.yml").read_text())["providers"]
    assert f"`{provider['options']['path']}`" in PAGE.read_text(encoding="utf-8")


def test_the_page_has_the_metrics_that_there_are() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "metrics_page.py"), "--check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, f"{checked.stderr}\nrun scripts/metrics_page.py"


def test_the_values_of_open_labels_are_those_in_the_code() -> None:
    from preceptor_services.parsing import Rung
    from preceptor_services.rewriting.objections import Fault

    assert VALUES["rung"].split(", ") == list(Rung)
    assert VALUES["finding"].split(", ") == ["usable", *Fault]
