"""Which command lines ask for JSON: mistakes in their options are told as JSON then."""

from __future__ import annotations

import pytest

from tablewatcher.cli.usage import asks_for_json, without_password


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


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("argument(s) (postgresql://ada:se:c@ret@db:5432/shop)", "argument(s) (postgresql://ada:***@db:5432/shop)"),
        ("'host=db password=secret user=ada' is no span", "'host=db password=*** user=ada' is no span"),
        ("password=a@b user=ada", "password=*** user=ada"),
        ("host=db password = 'se cret' user=ada", "host=db password = *** user=ada"),
        ("postgresql://ada@db:5432/shop", "postgresql://ada@db:5432/shop"),
        ("nats://db/shop", "nats://db/shop"),
        ("No such option: --bogus", "No such option: --bogus"),
    ],
)
def test_no_password_is_told(given: str, told: str) -> None:
    assert without_password(given) == told
