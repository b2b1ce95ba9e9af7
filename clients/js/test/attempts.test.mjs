// What counts as a failed attempt, with a clock of the test's own: vectors.test.mjs holds the rule, and this its use.

import assert from "node:assert/strict";
import test from "node:test";
import { connect } from "../dist/index.js";

/** The pauses after each WebSocket, all of which live alike: `life` is what happens to one, and `pass` lets time pass. */
function pauses(t, life, options = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1e12 });
  t.mock.method(Math, "random", () => 1);
  let socket;
  class Scripted {
    protocol = "arc-relay.v1";
    bufferedAmount = 0;
    readyState = 0;
    constructor() {
      socket = this;
    }
    open() {
      this.readyState = 1;
      this.onopen();
    }
    say(type) {
      this.onmessage({ data: JSON.stringify({ type }) });
    }
    end() {
      this.onclose({ code: 1011, reason: "the end" });
    }
    send() {}
    close() {}
  }
  const connection = connect({ url: "ws://relay.example", code: "x", WebSocket: Scripted, ...options });
  const seen = [];
  connection.on("reconnecting", ({ pause }) => seen.push(pause));
  const pass = (milliseconds) => t.mock.timers.tick(milliseconds);
  for (let nth = 0; nth < 5; nth++) {
    life(socket, pass);
    socket.end();
    pass(seen.at(-1));
  }
  void connection.close();
  return seen;
}

const GROWN = [500, 1000, 2000, 4000, 8000];
const AT_ONCE = [500, 500, 500, 500, 500];

test("a WebSocket that does not open is a failed attempt, however long that takes", (t) => {
  assert.deepEqual(pauses(t, (_, pass) => pass(15_000)), GROWN);
});

test("a relay that accepts and closes at once is left alone for longer and longer", (t) => {
  assert.deepEqual(pauses(t, (socket) => (socket.open(), socket.say("waiting"), socket.say("paired"))), GROWN);
});

test("a client that has waited for 10 s comes again at once", (t) => {
  const wait = (milliseconds) => (socket, pass) => (pass(1000), socket.open(), socket.say("waiting"), pass(milliseconds));
  assert.deepEqual(pauses(t, wait(9999)), GROWN);
  t.mock.reset();
  t.mock.timers.reset();
  assert.deepEqual(pauses(t, wait(10_000)), AT_ONCE);
});

test("an encrypted peer is there when it has proved itself", (t) => {
  const session = () => ({ opening: [], receive: ([ready]) => ({ ready: ready === 1 }), seal: () => [], farewell: () => [] });
  const meet = (...messages) => (socket, pass) => {
    socket.open();
    socket.say("paired");
    for (const message of messages) socket.onmessage({ data: Uint8Array.of(message).buffer });
    pass(5000);
  };
  assert.deepEqual(pauses(t, meet(0), { session }), GROWN);
  t.mock.reset();
  t.mock.timers.reset();
  assert.deepEqual(pauses(t, meet(0, 1), { session }), AT_ONCE);
});
