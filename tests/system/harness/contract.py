"""openapi.yaml as a judge: every answer is checked against the schema of its route and status."""

import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

URI = "urn:motte:openapi"


class ContractError(AssertionError):
    """The service answered something that openapi.yaml does not say."""


def _pointer(*parts: str) -> str:
    return "#/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in parts)


class Contract:
    """Routes and schemas of one openapi.yaml."""

    def __init__(self, path: Path) -> None:
        self.document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        resource = Resource.from_contents(self.document, default_specification=DRAFT202012)
        registry: Registry[Any] = Registry().with_resource(URI, resource)
        self._registry = registry
        self._routes: list[tuple[re.Pattern[str], str]] = [
            (re.compile("^" + re.sub(r"\{[^}]+\}", "[^/]+", template) + "$"), template)
            for template in self.document["paths"]
        ]

    def operations(self) -> list[tuple[str, str]]:
        """Every (METHOD, path template) there is."""
        methods = {"get", "put", "post", "delete", "patch", "head", "options"}
        return [
            (method.upper(), path)
            for path, item in self.document["paths"].items()
            for method in item
            if method in methods
        ]

    def operation(self, method: str, template: str) -> dict[str, Any]:
        operation: dict[str, Any] = self.document["paths"][template][method.lower()]
        return operation

    def example(self, method: str, template: str) -> dict[str, Any]:
        """What a client needs to ask as the contract's examples do: params, and a body."""
        operation = self.operation(method, template)
        asked: dict[str, Any] = {"params": {}}
        for node in operation.get("parameters", []):
            parameter = self._follow(node, "")[0]
            endless = parameter["name"] == "follow" and parameter["schema"].get("default")
            wanted = parameter.get("required") or endless
            if parameter["in"] == "query" and wanted:
                asked["params"][parameter["name"]] = parameter["example"]
        if "requestBody" not in operation:
            return asked
        content = self._follow(operation["requestBody"], "")[0]["content"]
        media, described = next(iter(content.items()))
        if media == "application/json":
            asked["json"] = next(iter(described["examples"].values()))["value"]
        else:
            asked |= {"content": b"some bytes", "headers": {"Content-Type": media}}
        return asked

    def template_of(self, path: str) -> str | None:
        return next((name for pattern, name in self._routes if pattern.match(path)), None)

    def _follow(self, node: dict[str, Any], pointer: str) -> tuple[dict[str, Any], str]:
        while "$ref" in node:
            pointer = node["$ref"]
            node = self.document
            for part in pointer.removeprefix("#/").split("/"):
                node = node[part.replace("~1", "/").replace("~0", "~")]
        return node, pointer

    def _validate(self, pointer: str, instance: object, where: str) -> None:
        validator = Draft202012Validator(
            {"$ref": URI + pointer}, registry=self._registry, format_checker=FormatChecker()
        )
        problems = [
            f"{error.json_path}: {error.message}" for error in validator.iter_errors(instance)
        ]
        if problems:
            raise ContractError(f"{where}: " + "; ".join(problems[:5]))

    def check_problem(self, body: object, where: str) -> None:
        self._validate(_pointer("components", "schemas", "Problem"), body, where)

    def check(self, method: str, path: str, status: int, content_type: str, body: object) -> None:
        """`body` is the decoded JSON for a JSON type, else the text."""
        where = f"{method} {path} -> {status}"
        template = self.template_of(path)
        item = self.document["paths"].get(template, {})
        operation = item.get(method.lower())
        not_here = isinstance(body, dict) and body.get("code") == "route_not_found"
        if operation is None or not_here:  # a listener may serve a part of the routes
            if status < 400:
                raise ContractError(f"{where}: answered a route that openapi.yaml does not have")
            self.check_problem(body, where)
            return
        responses = operation["responses"]
        key = str(status) if str(status) in responses else "default"
        if key not in responses:
            raise ContractError(f"{where}: openapi.yaml has no such status for this route")
        base = _pointer("paths", str(template), method.lower(), "responses", key)
        response, pointer = self._follow(responses[key], base)
        content = response.get("content", {})
        media = content_type.split(";", maxsplit=1)[0].strip()
        if not content and not media:
            return
        if media not in content:
            raise ContractError(f"{where}: type {media!r} is none of {sorted(content)}")
        schema = pointer + "/content/" + media.replace("/", "~1") + "/schema"
        self._validate(schema, body, where)
