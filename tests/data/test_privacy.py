"""Pseudonyms: the same for one key, other for another, valid UIDs."""

import hashlib
import hmac

import pydicom.uid
import pytest

from medtool.core.errors import UsageError
from medtool.data.privacy import Pseudonymiser, read_key

KEY = b"0123456789abcdef"


def test_names_are_keyed_hashes() -> None:
    one = Pseudonymiser(KEY)
    # RFC 4648 base 32 of an HMAC worked out with the standard library alone.
    digest = hmac.new(KEY, b"patient\x00MILLER", hashlib.sha256).digest()
    number = int.from_bytes(digest, "big")
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    expected = "".join(alphabet[(number >> (256 - 5 * (i + 1))) & 31] for i in range(13))
    assert one.name("patient", "MILLER") == f"patient-{expected}"
    assert one.name("patient", "MILLER") == Pseudonymiser(KEY).name("patient", "MILLER")
    assert one.name("patient", "MILLER") != Pseudonymiser(KEY + b"x").name("patient", "MILLER")
    assert one.name("case", "MILLER")[5:] != one.name("patient", "MILLER")[8:]
    assert one.name("patient", "") == ""


def test_uids_are_valid_and_stable() -> None:
    uid = Pseudonymiser(KEY).uid("1.2.840.1")
    assert pydicom.uid.UID(uid).is_valid
    assert uid == Pseudonymiser(KEY).uid("1.2.840.1") != Pseudonymiser(KEY).uid("1.2.840.2")
    assert Pseudonymiser(KEY).uid("") == ""


def test_the_key_is_made_once_and_never_beside_the_output(tmp_path) -> None:
    path = tmp_path / "keys" / "key"
    key, new = read_key(path, output=tmp_path / "out")
    assert new
    assert path.stat().st_mode & 0o077 == 0
    assert read_key(path, output=tmp_path / "out") == (key, False)
    with pytest.raises(UsageError, match="beside the output"):
        read_key(tmp_path / "out" / "key", output=tmp_path / "out")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(UsageError, match="too short"):
        read_key(tmp_path / "short", output=tmp_path / "out")
