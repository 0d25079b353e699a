"""Sealed reasoning: it cannot be read, changed, or used by another."""

import base64

import pytest

from ponder.serve.responses.seal import Foreign, Sealer
from ponder.serve.store import StoreError
from ponder.types import InvalidRequest

PARTS = [{"type": "reasoning", "text": "what is hidden"}]


@pytest.fixture
def sealer(tmp_path):
    return Sealer.beside(tmp_path / "store.db.key")


def test_what_was_sealed_is_opened_by_the_same_server_after_a_restart(sealer, tmp_path):
    sealed = sealer.seal("anna", "mini", "rs_1", PARTS)
    again = Sealer.beside(tmp_path / "store.db.key")
    assert again.open("anna", "mini", "rs_1", sealed) == PARTS
    assert oct((tmp_path / "store.db.key").stat().st_mode & 0o777) == "0o600"


def test_it_tells_nothing_and_is_never_the_same_twice(sealer):
    sealed = [sealer.seal("anna", "mini", "rs_1", PARTS) for _ in range(2)]
    assert sealed[0] != sealed[1]
    assert all(b"hidden" not in base64.urlsafe_b64decode(each) for each in sealed)


def test_another_owner_or_model_is_told_so(sealer):
    sealed = sealer.seal("anna", "mini", "rs_1", PARTS)
    assert sealer.open("ben", "mini", "rs_1", sealed) is Foreign.OWNER
    assert sealer.open("anna", "large", "rs_1", sealed) is Foreign.MODEL


def test_every_changed_byte_is_noticed(sealer):
    sealed = sealer.seal("anna", "mini", "rs_1", PARTS)
    token = base64.urlsafe_b64decode(sealed)
    for place in range(len(token)):
        changed = bytearray(token)
        changed[place] ^= 1
        with pytest.raises(InvalidRequest, match="unchanged"):
            sealer.open("anna", "mini", "rs_1", base64.urlsafe_b64encode(changed).decode())


@pytest.mark.parametrize("sealed", ["", "no base64 !", "aaaa", "ä", "a" * 300])
def test_what_never_was_sealed_is_refused(sealer, sealed):
    with pytest.raises(InvalidRequest, match="unchanged"):
        sealer.open("anna", "mini", "rs_1", sealed)


def test_it_belongs_to_its_item_and_to_its_key(sealer, tmp_path):
    sealed = sealer.seal("anna", "mini", "rs_1", PARTS)
    with pytest.raises(InvalidRequest):
        sealer.open("anna", "mini", "rs_2", sealed)
    with pytest.raises(InvalidRequest):
        Sealer.beside(tmp_path / "other.key").open("anna", "mini", "rs_1", sealed)


def test_a_key_of_the_wrong_length_is_named(tmp_path):
    (tmp_path / "short.key").write_bytes(b"short")
    with pytest.raises(StoreError, match="32 bytes"):
        Sealer.beside(tmp_path / "short.key")
