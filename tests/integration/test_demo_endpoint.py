"""The demonstration's HTTP endpoint, with requests that another implementation of Standard Webhooks has signed."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks import Webhook

from tablewatcher.cli.demo.manifests import new_signing_secret
from tablewatcher.cli.demo.receive import Arrivals, endpoint

BODY = json.dumps({"data": {"source": {"txId": 7}, "action": "insert"}, "partitionkey": "1", "id": "a"})


@pytest.mark.parametrize(
    ("fault", "status"),
    [("none", 204), ("another secret", 401), ("another body", 401), ("an hour ago", 401), ("unsigned", 401)],
)
async def test_only_what_is_signed_is_taken(fault: str, status: int) -> None:
    secret, arrivals = new_signing_secret(), Arrivals("HTTP")
    at = datetime.now(UTC) - (timedelta(hours=1) if fault == "an hour ago" else timedelta())
    signed = "{}" if fault == "another body" else BODY
    signer = Webhook(new_signing_secret() if fault == "another secret" else secret)
    headers = {
        "webhook-id": "a",
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": signer.sign("a", at, signed),
    }
    async with (
        endpoint(secret, arrivals) as url,
        aiohttp.ClientSession() as session,
        session.post(url, data=BODY, headers={} if fault == "unsigned" else headers) as answer,
    ):
        assert answer.status == status
    assert len(arrivals.all) == (status == 204)
