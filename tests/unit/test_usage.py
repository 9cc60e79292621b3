"""Which command lines ask for JSON: mistakes in their options are told as JSON then."""

from __future__ import annotations

import pytest

from tablewatcher.cli.usage import asks_for_json


@pytest.mark.parametrize(
    "line",
    [
        "plan -o json",
        "plan -ojson",
        "plan --output json --bogus",
        "--output=json plan",
        "plan -o text -o json",
    ],
)
def test_json_is_asked_for(line: str) -> None:
    assert asks_for_json(line.split())


@pytest.mark.parametrize(
    "line", ["", "plan", "plan -o", "plan -o yaml", "plan -o=json", "plan -f json --output", "plan -o json -o text"]
)
def test_no_json_is_asked_for(line: str) -> None:
    assert not asks_for_json(line.split())
