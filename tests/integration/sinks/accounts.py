"""Identities of NATS made on the spot: nkeys, and the JWTs of an operator, its account and its users."""

from __future__ import annotations

import base64
import json
import os
import time

import nkeys

_COUNTS = "subs data payload imports exports conn leaf mem_storage disk_storage streams consumer"
_BOUNDLESS = dict.fromkeys(_COUNTS.split(), -1) | {"wildcards": True}


def key_pair(role: int = nkeys.PREFIX_BYTE_USER) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), role))


def public(pair: nkeys.KeyPair) -> str:
    return pair.public_key.decode()


def _part(content: object) -> bytes:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")


def _jwt(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, nats: dict[str, object], expires: float | None = None) -> str:
    claims = {"jti": os.urandom(8).hex(), "iat": int(time.time()), "iss": public(issuer), "sub": public(subject)}
    claims |= {"name": "test", "nats": {"version": 2, **nats}}
    if expires is not None:
        claims["exp"] = int(expires)
    signed = b".".join((_part({"typ": "JWT", "alg": "ed25519-nkey"}), _part(claims)))
    return b".".join((signed, base64.urlsafe_b64encode(issuer.sign(signed)).rstrip(b"="))).decode()


class Operator:
    """An operator with one account that may use JetStream within `limits`. `config` is what its servers need."""

    def __init__(self, **limits: int) -> None:
        operator, system = key_pair(nkeys.PREFIX_BYTE_OPERATOR), key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
        self._account = key_pair(nkeys.PREFIX_BYTE_ACCOUNT)
        preload = "".join(
            f"  {public(account)}: {_jwt(operator, account, {'type': 'account', 'limits': limits})}\n"
            for account, limits in ((self._account, _BOUNDLESS | limits), (system, {}))
        )
        self.config = (
            f"operator: {_jwt(operator, operator, {'type': 'operator'})}\nsystem_account: {public(system)}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preload}}}\n"
        )

    def creds(self, expires: float | None = None, payload: int = -1) -> str:
        """A credentials file of a new user, good until `expires` (epoch seconds), for messages of `payload` bytes."""
        user = key_pair()
        rights = {"type": "user", "pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": payload}
        return (
            f"-----BEGIN NATS USER JWT-----\n{_jwt(self._account, user, rights, expires)}\n"
            "------END NATS USER JWT------\n\n************************* IMPORTANT *************************\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
        )
