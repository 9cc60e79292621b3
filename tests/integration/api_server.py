"""What of an API server the operator needs to read Secrets."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from kubernetes.aio.client import ApiClient, Configuration

from tablewatcher.controller.client import Cluster

# Labels and values of each Secret of namespace shop.
Kept = dict[str, tuple[dict[str, str], dict[str, str]]]


@asynccontextmanager
async def serving_secrets(kept: Kept, port: int) -> AsyncIterator[Cluster]:
    """A client of a server that has `kept`, whatever that is by now."""

    async def secret(request: web.Request) -> web.Response:
        if request.match_info["name"] not in kept:
            return web.json_response({"message": "not found"}, status=404)
        labels, values = kept[request.match_info["name"]]
        data = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
        return web.json_response({"metadata": {"labels": labels}, "data": data})

    application = web.Application()
    application.router.add_get("/api/v1/namespaces/shop/secrets/{name}", secret)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found = Cluster(ApiClient(Configuration(host=f"http://127.0.0.1:{port}")))
    try:
        yield found
    finally:
        await found.close()
        await runner.cleanup()
