"""What deploy/ has for Prometheus and Grafana, judged without either running."""

import json
import re
from pathlib import Path

import yaml

from checks import tree
from checks.test_operations import families, family
from harness.prometheus import DASHBOARD, dashboard_queries


def test_R05_the_scrape_configuration_is_valid() -> None:
    path = tree.ROOT / "deploy" / "prometheus" / "prometheus.yml"
    done = tree.run("promtool", "check", "config", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_R05_the_dashboard_asks_for_families_that_exist_in_promql(tmp_path: Path) -> None:
    queries = dashboard_queries()
    assert len(queries) > 30
    for title, expression in queries:
        named = {family(name) for name in re.findall(r"\bmotte_\w+", expression)}
        assert named <= families(), title
        assert 'job="motte"' in expression, title
    rules = [{"record": f"q{n}", "expr": expression} for n, (_, expression) in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = tree.run("promtool", "check", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_R05_the_dashboard_is_one_of_grafana() -> None:
    """What Grafana's importer needs, and panels that neither overlap nor share an id."""
    board = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert {"uid", "title", "schemaVersion", "panels", "templating", "time"} <= set(board)
    variables = {variable["name"] for variable in board["templating"]["list"]}
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    named = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(board["panels"])))
    assert named == variables
