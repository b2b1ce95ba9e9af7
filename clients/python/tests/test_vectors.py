"""The vectors of docs/protocol/vectors.json, which every client and the relay have in common."""

import json
import pathlib

import pytest

from arc_relay.closing import Attempts, action_of, pause_before
from arc_relay.connection import Connection
from arc_relay.e2e import device_secret, end_to_end, link_with, new_secret, secret_in
from arc_relay.noise import Forged, Handshake

VECTORS = json.loads((pathlib.Path(__file__).parents[3] / "docs/protocol/vectors.json").read_text())


def test_each_close_code_has_its_action() -> None:
    for vector in VECTORS["close_codes"]:
        assert action_of(vector["code"]) == vector["action"], vector


def test_no_pause_is_longer_than_an_hour_and_a_quarter() -> None:
    for after in (None, -5.0, 0.0, 12.0, 1e12, float("inf")):
        for random in (0.0, 0.5, 1.0):
            pause = pause_before("later", 3, after, random)
            assert min(max(1.0 if after is None else after, 0.0), 3600.0) <= pause <= 4500.0, (after, pause)


def test_a_client_comes_again_when_the_vectors_say_so() -> None:
    for vector in VECTORS["reconnecting"]:
        sides = [(Attempts(), 0.0), (Attempts(), 1.0)]
        for life in vector["sockets"]:
            for attempts, _ in sides:
                if life["open"] is not None:
                    attempts.open(life["open"])
                if life["met"] is not None:
                    attempts.meet(life["met"])
            pauses = [attempts.lose(life["code"], life.get("after"), life["lost"], random) for attempts, random in sides]
            if life.get("closed"):
                assert pauses == [None, None], (vector["about"], life)
                continue
            shortest, longest = pauses
            assert shortest is not None and longest is not None, (vector["about"], life)
            assert shortest >= life["least"] and longest <= (life["most"] or 4500), (vector["about"], life, pauses)
            # It is not shorter than it may be.
            assert life["most"] is None or longest == life["most"], (vector["about"], life, pauses)


def test_a_token_goes_into_a_subprotocol() -> None:
    for vector in VECTORS["token_subprotocols"]:
        connection = Connection("ws://relay.example", "x", token=vector["token"])
        assert connection._subprotocols == ["arc-relay.v1", vector["subprotocol"]]


def test_a_secret_gives_the_code_the_key_and_those_of_devices() -> None:
    for vector in VECTORS["end_to_end"]["derivations"]:
        secret = bytes.fromhex(vector["secret"])
        assert end_to_end(secret)["code"] == vector["code"]
        assert device_secret(secret, vector["device"]).hex() == vector["device_secret"]


def test_handshakes_and_records_are_those_of_another_implementation_of_noise() -> None:
    for meeting in VECTORS["end_to_end"]["meetings"]:
        key, first, second = (bytes.fromhex(meeting[name]) for name in ("key", "first", "second"))
        sides = {
            name: Handshake(key, b"arc-relay.e2e.v1", bytes.fromhex(meeting[f"{name}_ephemeral"]))
            for name in ("initiator", "responder")
        }
        assert sides["initiator"].write_first() == first
        sides["responder"].read_first(first)
        written, responder = sides["responder"].write_second(first)
        assert written == second
        keys = {"initiator": sides["initiator"].read_second(second), "responder": responder}
        for vector in meeting["records"]:
            plaintext, record = bytes.fromhex(vector["plaintext"]), bytes.fromhex(vector["record"])
            other = keys["responder" if vector["from"] == "initiator" else "initiator"]
            assert keys[vector["from"]].send.encrypt(plaintext) == record
            assert other.receive.decrypt(record) == plaintext


def test_a_record_that_is_changed_repeated_or_left_out_is_refused() -> None:
    for spoil in (
        lambda records: [records[0][:-1] + bytes([records[0][-1] ^ 1])],
        lambda records: [records[0], records[0]],
        lambda records: [records[1]],
        lambda records: [b""],
    ):
        session = end_to_end(new_secret())["session"]
        first, second = session(True), session(False)
        [answer] = first.receive(second.opening()[0]).replies
        assert second.receive(answer).ready
        records = [record for content in (b"one", b"two") for record in second.seal(content)]
        with pytest.raises(Forged):
            for record in spoil(records):
                first.receive(record)


def test_a_link_carries_the_secret() -> None:
    secret = new_secret()
    assert secret_in(link_with(secret, "https://app.example/pair?x=1#old")) == secret
    for link in ("https://app.example/", "https://app.example/#==", "https://app.example/#AAAA"):
        with pytest.raises(ValueError, match="no secret"):
            secret_in(link)


def test_the_query_of_the_url_is_kept() -> None:
    connection = Connection("https://relay.example/path?a=1&pair=old", "c+/ é", side="s")
    assert connection._target == "wss://relay.example/path?a=1&pair=c%2B%2F+%C3%A9&side=s"
