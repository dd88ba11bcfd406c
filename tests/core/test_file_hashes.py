"""Hashes of files, against the digests that NIST publishes for SHA-256."""

import hashlib
from pathlib import Path

import pytest

from medtool.core.files import file_sha256, files_sha256

# FIPS 180-4 example: SHA-256 of "abc"; and of nothing at all.
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_a_file_has_the_published_digest_of_its_bytes(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    assert file_sha256(tmp_path / "abc") == ABC
    assert file_sha256(tmp_path / "empty") == NOTHING


def test_several_files_have_one_hash_in_any_order(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")
    (tmp_path / "empty").touch()
    both = hashlib.sha256(f"{ABC}{NOTHING}".encode()).hexdigest()
    assert files_sha256([tmp_path / "empty", tmp_path / "abc"]) == both
    assert files_sha256([tmp_path / "abc", tmp_path / "empty"]) == both


def test_a_missing_file_has_no_hash(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        file_sha256(tmp_path / "absent")
