"""Who was seen in training, without saying who: salted, slow hashes of patient ids.

A checkpoint travels. It must refuse to be evaluated on its own training patients, yet nobody may
read their ids out of it. Ids are short and easy to list, so a plain hash would be no protection:
each guess has to cost (scrypt, RFC 7914), and every run has a salt of its own.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from medtool.core.errors import CheckpointError

ALGORITHM = "scrypt"
# 8 MB and some 20 ms for each id: a cohort of thousands is checked in a minute, a list of all
# numbers of eight digits takes weeks of a processor for each checkpoint.
COST = 2**13
BLOCK_SIZE = 8
PARALLELISM = 1
SALT_BYTES = 16
HASH_BYTES = 16


def hash_patients(patient_ids: Iterable[str]) -> dict[str, Any]:
    """The table ``patients`` of a checkpoint for these ids."""
    table: dict[str, Any] = {
        "algorithm": ALGORITHM,
        "n": COST,
        "r": BLOCK_SIZE,
        "p": PARALLELISM,
        "salt": secrets.token_hex(SALT_BYTES),
    }
    return {**table, "hashes": sorted(_hashes(table, sorted(set(patient_ids))).values())}


def seen_patients(table: Mapping[str, Any], patient_ids: Iterable[str]) -> set[str]:
    """Those of ``patient_ids`` that the model was trained on or chosen with.

    ``table`` is a checkpoint's ``patients``; that of several models together holds theirs as
    ``tables``. Raises CheckpointError where it cannot be understood.
    """
    if not table or not table.get("hashes"):
        return set()
    patients = sorted(set(patient_ids))
    if "tables" in table:
        return {seen for own in table["tables"] for seen in seen_patients(own, patients)}
    known = set(table["hashes"])
    found = _hashes(table, patients)
    return {patient for patient, value in found.items() if value in known}


def _hashes(table: Mapping[str, Any], patient_ids: list[str]) -> dict[str, str]:
    if table.get("algorithm") != ALGORITHM:
        raise CheckpointError(
            "The list of training patients of this checkpoint cannot be understood.",
            met=str(table.get("algorithm")),
            wanted=ALGORITHM,
            how="install a newer medtool",
        )
    salt = bytes.fromhex(table["salt"])

    def one(patient: str) -> str:
        return hashlib.scrypt(
            patient.encode(),
            salt=salt,
            n=int(table["n"]),
            r=int(table["r"]),
            p=int(table["p"]),
            dklen=HASH_BYTES,
        ).hex()

    # hashlib lets other threads run while it computes.
    with ThreadPoolExecutor() as pool:
        return dict(zip(patient_ids, pool.map(one, patient_ids), strict=True))
