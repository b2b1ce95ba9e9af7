// The vectors of docs/protocol/vectors.json, which every client and the relay have in common.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { encode } from "../dist/base64url.js";
import { deviceSecret, endToEnd } from "../dist/e2e.js";
import { Attempts } from "../dist/closing.js";
import { actionOf, pauseBefore } from "../dist/index.js";
import { Handshake } from "../dist/noise.js";

const vectors = JSON.parse(readFileSync(new URL("../../../docs/protocol/vectors.json", import.meta.url), "utf8"));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (value) => Buffer.from(value).toString("hex");

test("each close code has its action", () => {
  for (const { code, action } of vectors.close_codes) assert.equal(actionOf(code), action, String(code));
});

test("no pause is longer than an hour and a quarter, whatever the relay asks for", () => {
  for (const after of [undefined, -5, 0, 12, 1e12, Infinity]) {
    for (const random of [0, 0.5, 1]) {
      const pause = pauseBefore("later", 3, after, random);
      assert.ok(pause >= 1000 * Math.min(Math.max(after ?? 1, 0), 3600) && pause <= 4_500_000, `${after}: ${pause}`);
    }
  }
});

test("a client comes again when the vectors say so", () => {
  for (const { about, sockets } of vectors.reconnecting) {
    const [early, late] = [new Attempts(), new Attempts()];
    for (const { open, met, lost, code, after, closed, least, most } of sockets) {
      for (const attempts of [early, late]) {
        if (open !== null) attempts.open(1000 * open);
        if (met !== null) attempts.meet(1000 * met);
      }
      const [shortest, longest] = [[early, 0], [late, 1]].map(([attempts, random]) => attempts.lose(code, after, 1000 * lost, random));
      const what = `${about} ${lost} s: ${shortest} to ${longest}`;
      if (closed === true) assert.deepEqual([shortest, longest], [undefined, undefined], what);
      else assert.ok(shortest >= 1000 * least && longest <= 1000 * (most ?? 4_500), what);
      // It is not shorter than it may be.
      if (most !== null && closed !== true) assert.equal(longest, 1000 * most, what);
    }
  }
});

test("a token goes into a subprotocol", () => {
  for (const { token, subprotocol } of vectors.token_subprotocols) {
    assert.equal(`arc-relay.token.${encode(new TextEncoder().encode(token))}`, subprotocol);
  }
});

test("a secret gives the code, the key, and those of devices", () => {
  for (const { secret, code, device, device_secret } of vectors.end_to_end.derivations) {
    assert.equal(endToEnd(bytes(secret)).code, code);
    assert.equal(hex(deviceSecret(bytes(secret), device)), device_secret);
  }
});

test("handshakes and records are those of another implementation of Noise", () => {
  for (const meeting of vectors.end_to_end.meetings) {
    const prologue = new TextEncoder().encode("arc-relay.e2e.v1");
    const [key, first, second] = [meeting.key, meeting.first, meeting.second].map(bytes);
    const initiator = new Handshake(key, prologue, bytes(meeting.initiator_ephemeral));
    const responder = new Handshake(key, prologue, bytes(meeting.responder_ephemeral));
    assert.equal(hex(initiator.writeFirst()), meeting.first);
    assert.equal(responder.readFirst(first).length, 0);
    const written = responder.writeSecond(first);
    assert.equal(hex(written.message), meeting.second);
    const keys = { initiator: initiator.readSecond(second).keys, responder: written.keys };
    for (const { from, plaintext, record } of meeting.records) {
      const to = from === "initiator" ? "responder" : "initiator";
      assert.equal(hex(keys[from].send.encrypt(bytes(plaintext))), record);
      assert.equal(hex(keys[to].receive.decrypt(bytes(record))), plaintext);
    }
  }
});
