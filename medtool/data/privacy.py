"""Pseudonyms: every id and UID by a keyed hash, the same on every run with the same key."""

from __future__ import annotations

import base64
import hmac
import secrets
from pathlib import Path

from medtool.core.errors import UsageError
from medtool.core.files import cannot_write

KEY_BYTES = 32
SHORTEST_KEY_BYTES = 16
PSEUDONYM_CHARACTERS = 13  # 65 bits: no two of a million ids meet by chance (p < 1e-7)
# PS3.5 B.2: a UID made from a UUID is 2.25 and the UUID as a decimal number.
UUID_ROOT = "2.25"


def read_key(path: Path, *, output: Path) -> tuple[bytes, bool]:
    """The key in ``path``, made there (readable by its owner only) when there is none.

    Gives the key and whether it is new. Raises UsageError when the file lies in the output, whose
    reader could then undo the pseudonyms, or is too short; MachineError when it cannot be made.
    """
    if path.resolve().is_relative_to(output.resolve()):
        raise UsageError(
            "The key of the pseudonyms would lie beside the output that it protects.",
            where=str(path),
            wanted=f"a file outside {output}",
            how="name a file in another folder.",
        )
    if path.is_file():
        key = path.read_bytes().strip()
        if len(key) < SHORTEST_KEY_BYTES:
            raise UsageError(
                "The key of the pseudonyms is too short to protect anyone.",
                where=str(path),
                met=f"{len(key)} bytes",
                wanted=f"at least {SHORTEST_KEY_BYTES} bytes that no one can guess",
                how="name a file that does not exist yet, and a good key is written there.",
            )
        return key, False
    key = secrets.token_hex(KEY_BYTES).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(key + b"\n")
    except OSError as error:
        raise cannot_write(path, error) from error
    return key, True


class Pseudonymiser:
    """Keyed names (HMAC-SHA-256): stable for one key, not to be undone without it."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _digest(self, kind: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{kind}\0{text}".encode(), "sha256")

    def name(self, kind: str, text: str) -> str:
        """A pseudonym for an id of one kind; "" stays ""."""
        if not text:
            return ""
        code = base64.b32encode(self._digest(kind, text)).decode().lower()
        return f"{kind}-{code[:PSEUDONYM_CHARACTERS]}"

    def uid(self, uid: str) -> str:
        """A valid DICOM UID in place of ``uid``; "" stays ""."""
        if not uid:
            return ""
        return f"{UUID_ROOT}.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"
