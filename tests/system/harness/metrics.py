"""What GET /metrics says."""

import re

from .client import Client

Samples = dict[str, float]


def scrape(client: Client) -> tuple[str, Samples]:
    """The text of GET /metrics, and its samples by name and labels."""
    text = client.expect(200, "GET", "/metrics").text
    samples = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            samples[name] = float(value)
    return text, samples


def total(samples: Samples, family: str, **labels: str) -> float:
    """Of all samples of a family that have these labels."""
    return sum(
        value
        for name, value in samples.items()
        if re.match(re.escape(family) + r"(\{|$)", name)
        and all(f'{key}="{wanted}"' in name for key, wanted in labels.items())
    )
