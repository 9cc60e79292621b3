"""How to sign in to NATS: the options of one connect, from the manifest and what its Secrets hold right now."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from ...errors import Reason, SinkError
from ..tls import client_context, secret_value, secret_values

if TYPE_CHECKING:
    import nkeys

    from ...spec.model import NatsSink, SecretKey
    from ...spec.secrets import Secrets

_JWT = re.compile(r"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED = re.compile(r"-+BEGIN USER NKEY SEED-+\s+(\S+)\s+-+END")


class Login:
    """The servers of a sink, and who we are to them. No value of a Secret is kept here."""

    def __init__(self, spec: NatsSink, secrets: Secrets) -> None:
        self.servers = spec.servers
        self._auth = spec.auth
        self._tls = spec.tls
        self._secrets = secrets

    @property
    def encrypted(self) -> bool:
        """Whether nothing may be sent in the clear."""
        return self._tls is not None or any(server.startswith("tls://") for server in self.servers)

    def options(self) -> dict[str, Any]:
        """Keyword arguments of the library's `connect`, from Secrets as they are now.

        SinkError: SecretNotFound, SecretKeyMissing, TLSFailed, or SinkAuthFailed where a value cannot be one.
        """
        found: dict[str, Any] = {}
        if self.encrypted:
            found["tls"] = client_context(self._tls, self._secrets)
        if self._tls is not None and self._tls.handshake_first:
            found["tls_handshake_first"] = True
        auth = self._auth
        if auth is None:
            return found
        if auth.creds is not None:
            found |= self._from_creds(auth.creds)
        if auth.nkey is not None:
            found["nkeys_seed_str"] = self._seed(auth.nkey)
        if auth.token is not None:
            found["token"] = self._value(auth.token).strip()
        if auth.user_password is not None:
            pair = secret_values(self._secrets.read, "Secret", auth.user_password, "username", "password")
            found["user"], found["password"] = (value.strip("\r\n") for value in pair)
        return found

    def _value(self, key: SecretKey) -> str:
        return secret_value(self._secrets.read, "Secret", key.name, key.key)

    def _from_creds(self, key: SecretKey) -> dict[str, Any]:
        # Not by the library's own reader: it wants a file, and looks for ever in one without a JWT.
        text = self._value(key)
        jwt, seed = _JWT.search(text), _SEED.search(text)
        if jwt is None or seed is None:
            raise SinkError(
                Reason.SINK_AUTH_FAILED,
                f"key {key.key!r} of Secret {key.name!r} (spec.sink.nats.auth.credsSecretRef) is no credentials file: "
                "store what `nsc generate creds` writes",
            )
        pair = _key_pair(seed[1], key, "credsSecretRef")
        return {
            "user_jwt_cb": lambda: bytearray(jwt[1].encode()),
            "signature_cb": lambda nonce: base64.b64encode(pair.sign(nonce.encode())),
        }

    def _seed(self, key: SecretKey) -> str:
        seed = self._value(key).strip()
        _key_pair(seed, key, "nkeySecretRef")
        return seed


def _key_pair(seed: str, key: SecretKey, field: str) -> nkeys.KeyPair:
    # Here: the library of curves it comes with is of use to few (decision 0014).
    import nkeys

    try:
        return nkeys.from_seed(seed.encode())
    except Exception:  # noqa: BLE001 - whatever the library makes of rubbish, with the seed in its message or not
        raise SinkError(
            Reason.SINK_AUTH_FAILED,
            f"key {key.key!r} of Secret {key.name!r} (spec.sink.nats.auth.{field}) holds no nkey seed: "
            "it begins with SU, and is written on one line",
        ) from None
