// What counts as a failed attempt, with a clock of the test's own: vectors.test.mjs holds the rule, and this its use.

import assert from "node:assert/strict";
import test from "node:test";
import { connect } from "../dist/index.js";

/** A connection whose WebSockets do what the test says, and whose time and chance are the test's. */
function scripted(t, options = {}) {
  t.mock.timers.enable({ apis: ["setTimeout", "setInterval", "Date"], now: 1e12 });
  t.mock.method(Math, "random", () => 1);
  const sockets = [];
  class Scripted {
    protocol = "arc-relay.v1";
    bufferedAmount = 0;
    readyState = 0;
    constructor() {
      sockets.push(this);
    }
    open() {
      this.readyState = 1;
      this.onopen();
    }
    say(type, more) {
      this.hear(JSON.stringify({ type, ...more }));
    }
    hear(text) {
      this.onmessage({ data: text });
    }
    end(code = 1011) {
      this.onclose({ code, reason: "the end" });
    }
    send() {}
    close() {}
  }
  const connection = connect({ url: "ws://relay.example", code: "x", WebSocket: Scripted, ...options });
  t.after(() => void connection.close());
  const seen = [];
  connection.on("reconnecting", ({ pause }) => seen.push(pause));
  return { connection, sockets, pauses: seen, pass: (milliseconds) => t.mock.timers.tick(milliseconds) };
}

/** The pauses after each WebSocket, all of which live alike: `life` is what happens to one, and `pass` lets time pass. */
function pauses(t, life, options) {
  const { connection, sockets, pauses, pass } = scripted(t, options);
  for (let nth = 0; nth < 5; nth++) {
    life(sockets.at(-1), pass);
    sockets.at(-1).end();
    pass(pauses.at(-1));
  }
  void connection.close();
  return pauses;
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

/** A connection in its longest pause. */
function paused(t) {
  const stage = scripted(t);
  while (stage.pauses.at(-1) !== 30_000) {
    stage.pass(stage.pauses.at(-1) ?? 0);
    stage.sockets.at(-1).end();
  }
  return { ...stage, attempts: () => stage.sockets.length };
}

test("a program that asks for it ends the pause, and the pauses begin anew", (t) => {
  const { connection, sockets, pauses, pass, attempts } = paused(t);
  const before = attempts();
  pass(20_000);
  connection.reconnect("the network is back");
  assert.equal(attempts(), before + 1);
  assert.equal(pauses.at(-1), 0);
  // The pause that was ended does not end once more.
  pass(20_000);
  assert.equal(attempts(), before + 1);
  sockets.at(-1).end();
  assert.equal(pauses.at(-1), 500);
});

test("an attempt that has no answer yet is given up for another one", (t) => {
  const { connection, sockets, pauses, pass, attempts } = paused(t);
  pass(30_000);
  const before = attempts();
  connection.reconnect();
  assert.equal(attempts(), before + 1);
  // What becomes of the old one does not matter any more.
  sockets.at(-2).end();
  assert.equal(pauses.at(-1), 0);
  sockets.at(-1).open();
  sockets.at(-1).say("waiting");
  assert.equal(connection.state, "waiting");
});

test("a program that asks all the time comes no more often than one that asks once in 10 s, and is let in", (t) => {
  const { connection, sockets, pass, attempts } = paused(t);
  const before = attempts();
  for (let time = 0; time < 60_000; time += 50) {
    connection.reconnect();
    if (sockets.at(-1).readyState === 0) sockets.at(-1).end();
    sockets.at(-1).readyState = 3;
    pass(50);
  }
  // Each time at once, then after 500, 1000, 2000 and 4000 ms.
  assert.equal(attempts() - before, 6 * 5);
  // An attempt lives on through further requests.
  pass(60_000);
  connection.reconnect();
  const socket = sockets.at(-1);
  pass(5000);
  connection.reconnect();
  assert.equal(sockets.at(-1), socket);
});

test("a pause that the relay asks for stays", (t) => {
  const { connection, sockets, pass } = scripted(t);
  sockets[0].open();
  sockets[0].say("retry", { after: 12 });
  sockets[0].end(4429);
  pass(11_000);
  connection.reconnect();
  assert.equal(sockets.length, 1);
  pass(5000);
  assert.equal(sockets.length, 2);
});

test("a connection that is closed stays so", async (t) => {
  const { connection, sockets } = paused(t);
  const before = sockets.length;
  await connection.close();
  connection.reconnect();
  assert.equal(sockets.length, before);
});

test("a listener that closes the connection when it is lost ends it", (t) => {
  const { connection, sockets, pass } = scripted(t);
  connection.on("reconnecting", () => void connection.close());
  sockets[0].end();
  assert.equal(connection.state, "closed");
  pass(60_000);
  assert.equal(sockets.length, 1);
});

test("control messages that make no sense are ignored, and times are bounded", (t) => {
  const { connection, sockets, pauses } = scripted(t);
  const told = [];
  connection.on("draining", (within) => told.push(within));
  const [socket] = sockets;
  socket.open();
  for (const text of ["", "<html>", "null", "[]", "7", '"waiting"', '{"type":1}', '{"type":"later"}', "{}", '{"type":["waiting"]}']) {
    socket.hear(text);
  }
  assert.equal(connection.state, "connecting");
  for (const within of [30, undefined, "30", null, -1, 1e300]) socket.say("draining", { within });
  assert.deepEqual(told, [30, 0, 0, 0, 0, 3600]);
  socket.say("waiting");
  assert.equal(connection.state, "waiting");
  socket.end();
  pauses.length = 0;
  for (const [after, most] of [["7", 1000], [{}, 1000], [-7, 1000], [null, 1000], [1e300, 4_500_000], [8, 10_000]]) {
    t.mock.timers.tick(5_000_000);
    sockets.at(-1).say("retry", { after });
    sockets.at(-1).end(4429);
    assert.equal(pauses.pop(), most, `after ${JSON.stringify(after)}`);
  }
});

/** A connection that has met its peer. */
function met(t) {
  const stage = scripted(t);
  stage.sockets[0].open();
  stage.sockets[0].say("paired");
  assert.equal(stage.connection.state, "paired");
  stage.pass(2000);
  return stage;
}

test("a listener that reconnects when the peer has gone opens one WebSocket", (t) => {
  for (const kind of ["unpaired", "state", "reconnecting"]) {
    const { connection, sockets, pauses, pass } = met(t);
    const end = connection.on(kind, () => connection.reconnect());
    sockets[0].end();
    end();
    assert.equal(sockets.length, 2, kind);
    // The pause that the listener has ended is told by no event behind that of the attempt.
    assert.equal(pauses.at(-1), 0, kind);
    pass(5000);
    assert.equal(sockets.length, 2, kind);
    t.mock.reset();
    t.mock.timers.reset();
  }
});

test("a listener that reconnects does not undo an end for good", (t) => {
  const { connection, sockets, pass } = met(t);
  connection.on("unpaired", () => connection.reconnect());
  sockets[0].end(4001);
  assert.equal(connection.state, "closed");
  pass(60_000);
  assert.equal(sockets.length, 1);
});

test("nothing is told behind the end, and nothing of a meeting behind its end", async (t) => {
  for (const act of ["close", "reconnect"]) {
    for (const kind of ["state", "paired", "unpaired", "message", "draining", "reconnecting"]) {
      const told = [];
      const opens = () => ({ opening: [], receive: () => ({ ready: true, message: Uint8Array.of(1), orderly: true }), seal: () => [], farewell: () => [] });
      const { connection, sockets, pass } = scripted(t, { session: opens });
      let isOver = false;
      for (const name of ["state", "paired", "unpaired", "message", "draining", "reconnecting", "closed"]) {
        connection.on(name, (detail) => {
          if (isOver) told.push(name);
          if (name === "closed") isOver = true;
          if (name === "reconnecting") told.meeting = false;
          if (name === "state") told.meeting = detail === "paired" || (told.meeting && detail !== "connecting");
          if (["paired", "message"].includes(name) && !told.meeting) told.push(`${name} without a peer`);
        });
      }
      connection.on(kind, () => void connection[act]());
      const socket = sockets[0];
      socket.open();
      socket.say("draining");
      socket.say("paired");
      if (sockets.length === 1) socket.onmessage({ data: Uint8Array.of(0).buffer });
      for (let turn = 0; turn < 20; turn++) await null;
      if (!isOver && sockets.length === 1) socket.end();
      for (let turn = 0; turn < 20; turn++) await null;
      if (act === "close") {
        assert.equal(connection.state, "closed", kind);
        pass(60_000);
        assert.equal(sockets.length, 1, kind);
      }
      assert.deepEqual([...told], [], `${act} in ${kind}`);
      void connection.close();
      t.mock.reset();
      t.mock.timers.reset();
    }
  }
});
