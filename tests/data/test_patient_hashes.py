"""Training patients are recognised without their ids: salted, slow hashes."""

import hashlib

import pytest

from medtool.core.errors import CheckpointError
from medtool.data.patient_hashes import hash_patients, seen_patients


def test_a_hash_is_scrypt_of_the_id() -> None:
    table = hash_patients(["0042"])
    # RFC 7914 by the standard library, with the numbers that the table itself names.
    wanted = hashlib.scrypt(
        b"0042", salt=bytes.fromhex(table["salt"]), n=8192, r=8, p=1, dklen=16
    ).hex()
    assert (table["algorithm"], table["n"], table["r"], table["p"]) == ("scrypt", 8192, 8, 1)
    assert table["hashes"] == [wanted]
    assert len(bytes.fromhex(table["salt"])) == 16


def test_those_who_were_seen_are_known_and_nobody_else() -> None:
    table = hash_patients(["0042", "Müller", "0042"])
    assert len(table["hashes"]) == 2
    # Leading zeros count: "42" is another patient.
    assert seen_patients(table, ["0042", "42", "Müller", "muller"]) == {"0042", "Müller"}


def test_two_runs_have_salts_of_their_own() -> None:
    first, second = hash_patients(["a"]), hash_patients(["a"])
    assert first["salt"] != second["salt"]
    assert first["hashes"] != second["hashes"]


def test_hashes_stand_in_an_order_that_tells_nothing_of_the_patients() -> None:
    table = hash_patients([str(number) for number in range(8)])
    assert table["hashes"] == sorted(table["hashes"])


@pytest.mark.parametrize("table", [{}, {"algorithm": "scrypt", "hashes": []}])
def test_a_model_that_lists_nobody_has_seen_nobody(table: dict[str, object]) -> None:
    assert seen_patients(table, ["a"]) == set()


def test_a_list_in_another_way_is_refused_never_ignored() -> None:
    table = {**hash_patients(["a"]), "algorithm": "argon2"}
    with pytest.raises(CheckpointError) as error:
        seen_patients(table, ["a"])
    assert error.value.met == "argon2"
