"""`encrypted_content`: reasoning that a client carries for a server that keeps nothing, and cannot read or change.

AES-256-GCM (NIST SP 800-38D). The header names whose it is and which model's; it is authenticated as associated data.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from ponder.model.checkpoint import atomic_file
from ponder.serve.store import StoreError
from ponder.types import InvalidRequest, MissingExtra

KEY_BYTES, NONCE_BYTES, NAME_BYTES = 32, 12, 16
VERSION = b"\x01"
HEADER_BYTES = len(VERSION) + 2 * NAME_BYTES


class Foreign(StrEnum):
    """Why reasoning is not for this request, in the API's words: it is of another owner, model or turn."""

    OWNER = "organization_mismatch"
    MODEL = "model_mismatch"
    TURN = "turn_boundary"


class Sealer:
    """Seals and opens under one key."""

    def __init__(self, key: bytes) -> None:
        """Raises MissingExtra where `cryptography` is not installed."""
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingExtra("cryptography", "serve") from None
        self._cipher = AESGCM(key)

    @classmethod
    def beside(cls, path: Path) -> Sealer:
        """With the key in the file `path`, made if it does not exist, readable by its user alone. Raises StoreError."""
        if not path.exists():
            with atomic_file(path, replace=True) as file:
                os.fchmod(file.fileno(), 0o600)
                file.write(secrets.token_bytes(KEY_BYTES))
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise StoreError(
                f"{path}: a key has {KEY_BYTES} bytes (this file has {len(key)}): delete the file, and "
                "the server makes a new one"
            )
        return cls(key)

    def seal(self, owner: str, model: str, id: str, parts: Sequence[Any]) -> str:
        """The parts (JSON) of reasoning item `id`, as text that only this server opens, for this owner and model."""
        header, nonce = VERSION + _digest(owner) + _digest(model), secrets.token_bytes(NONCE_BYTES)
        text = json.dumps([id, list(parts)], separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(header + nonce + self._cipher.encrypt(nonce, text, header)).decode()

    def open(self, owner: str, model: str, id: str, sealed: str) -> list[Any] | Foreign:
        """The parts, or why they are not for this request. Raises InvalidRequest for what this server did not seal."""
        from cryptography.exceptions import InvalidTag

        broken = InvalidRequest(
            "encrypted_content was not made by this server, or was changed: send it back unchanged, or leave it out"
        )
        try:
            token = base64.b64decode(sealed, altchars=b"-_", validate=True)
            header, nonce = token[:HEADER_BYTES], token[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
            text = self._cipher.decrypt(nonce, token[HEADER_BYTES + NONCE_BYTES :], header)
        except (binascii.Error, ValueError, InvalidTag):
            raise broken from None
        if header[: len(VERSION)] != VERSION:
            raise broken
        if header[len(VERSION) : -NAME_BYTES] != _digest(owner):
            return Foreign.OWNER
        if header[-NAME_BYTES:] != _digest(model):
            return Foreign.MODEL
        named, parts = json.loads(text)
        if named != id:
            raise broken
        return list(parts)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()[:NAME_BYTES]
