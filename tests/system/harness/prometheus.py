"""A real Prometheus with Motte's own configuration, and the queries of Motte's dashboard."""

import json
import subprocess
from pathlib import Path
from typing import Any

import httpx
import yaml

from .waiting import wait_until

DEPLOY = Path(__file__).parents[3] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "motte.json"
INTERVAL = "200ms"  # what matters is the number of scrapes, not the time between them


def dashboard_queries() -> list[tuple[str, str]]:
    """Title of the panel and expression, with Grafana's variables filled in for one host."""
    filled = {"$__rate_interval": "10s", "$instance": ".*"}
    found = []
    for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            expression: str = target["expr"]
            for name, value in filled.items():
                expression = expression.replace(name, value)
            found.append((panel["title"], expression))
    return found


class Prometheus:
    """Debian's; scrapes one host. In this network namespace, which nobody else uses."""

    def __init__(self, folder: Path, target: str, port: int) -> None:
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": INTERVAL, "evaluation_interval": INTERVAL}
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        rules = (DEPLOY / "prometheus" / "motte.rules.yml").read_text(encoding="utf-8")
        (folder / "motte.rules.yml").write_text(rules, encoding="utf-8")
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1")
        self.log = folder / "prometheus.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={folder / 'prometheus.yml'}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        self.http.close()
        self.process.terminate()
        self.process.wait(timeout=30)

    def ask(self, path: str, **params: str) -> Any:
        response = self.http.get(path, params=params)
        if response.status_code == 503:
            raise httpx.ConnectError("it starts")
        answer = response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        result: list[dict[str, Any]] = self.ask("/query", query=expression)["result"]
        return result

    def holds(self, expression: str) -> bool:
        """False also while it does not listen yet."""
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
        try:
            return self.query(expression) != []
        except httpx.TransportError:
            return False

    def wait(self, expression: str, seconds: float = 30) -> None:
        wait_until(lambda: self.holds(expression), seconds, f"never true: {expression}")

    def rules(self) -> dict[str, dict[str, Any]]:
        groups = self.ask("/rules", type="alert")["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}
