// The rules of resuming against a naive model: programs that send, take, meet, are cut off and start anew, in any order.

import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { encodeAcknowledgement, encodeHello, encodeMessage } from "../dist/frames.js";
import { Resumption } from "../dist/resumption.js";

const OVERHEAD = 64;
const BOUNDS = { buffer: 1000, window: 700 };

/** Each name is another one, and differs from the others in one byte as in many. */
let names = 1;
const name = () => {
  const bytes = new Uint8Array(16);
  new DataView(bytes.buffer).setUint32(12, Math.imul(names++, 0x9e3779b1));
  return bytes;
};

const numberIn = (frame) => Number(new DataView(frame.buffer).getBigUint64(1));

/** What one run of a program knows: its associations with peers, as the model sees them. */
class Program {
  resumption = new Resumption(BOUNDS, name);
  /** Its associations, the latest last. */
  history = [];

  get latest() {
    return this.history.at(-1);
  }
}

/** A few programs with one code, two of which may meet. What is under way in a meeting arrives in order, up to a cut. */
class World {
  time = 0;
  messages = 0;
  programs = [new Program(), new Program(), new Program()];
  /** The two that meet, and what is under way to each. */
  meeting;

  /** Begins a meeting, instead of the one there is. */
  meet(one, other) {
    this.cut();
    this.meeting = { sides: [this.programs[one], this.programs[other]], under: [[], []], cursors: [] };
    for (const { resumption } of this.meeting.sides) resumption.meet();
  }

  cut() {
    for (const { resumption } of this.meeting?.sides ?? []) resumption.part();
    this.meeting = undefined;
  }

  restart(nth) {
    if (this.meeting?.sides.includes(this.programs[nth])) this.cut();
    this.programs[nth] = new Program();
  }

  /** Puts the next frame of a side under way. */
  transmit(side, acknowledges) {
    const frame = this.meeting?.sides[side].resumption.next(acknowledges);
    if (frame !== undefined) {
      this.meeting.under[1 - side].push(frame);
      if (frame[0] === 1) this.meeting.cursors[side] = numberIn(frame) + 1;
    } else if (this.meeting?.cursors[side] !== undefined) {
      this.isKeptBack(side);
    }
    return frame !== undefined;
  }

  /** A side that has more to send is kept from it by the window only. */
  isKeptBack(side) {
    const { association, accepted } = this.meeting.sides[side].latest;
    const underWay = accepted.slice(association.acknowledged, this.meeting.cursors[side] + 1);
    const cost = underWay.reduce((sum, { message }) => sum + message.length + OVERHEAD, 0);
    assert.ok(this.meeting.cursors[side] === accepted.length || cost > BOUNDS.window);
  }

  /** Delivers the next frame to a side. */
  deliver(side) {
    const frame = this.meeting?.under[side].shift();
    if (frame === undefined) return false;
    const [program, peer] = [this.meeting.sides[side], this.meeting.sides[1 - side]];
    program.resumption.receive(frame);
    this.notice(program, peer);
    return true;
  }

  /** Notes a new association. It has to have a reason. */
  notice(program, peer) {
    const { association } = program.resumption;
    const before = program.latest;
    if (association === undefined || association === before?.association) {
      if (before !== undefined) assert.equal(before.peer, peer);
      return;
    }
    if (before?.peer === peer) {
      const turnedAway = peer.history.some(({ peer, since }) => peer !== program && since > before.since);
      assert.ok(turnedAway, "a peer that runs on, and met no other, is told to be new");
    }
    program.history.push({ association, peer, since: ++this.time, accepted: [], taken: [] });
  }

  send(nth, length) {
    const entry = this.programs[nth].latest;
    if (entry === undefined) return;
    const { association, accepted } = entry;
    const waiting = accepted.slice(association.acknowledged);
    const cost = waiting.reduce((sum, { message }) => sum + message.length + OVERHEAD, 0);
    const hasRoom = waiting.length === 0 || cost + length + OVERHEAD <= BOUNDS.buffer;
    const message = new Uint8Array(length);
    new DataView(message.buffer).setUint32(0, this.messages);
    assert.equal(association.offer(message), hasRoom);
    if (hasRoom) accepted.push({ message: message.slice(), id: this.messages++, by: entry });
    message.fill(0xff); // the caller may use its memory again
  }

  take(nth) {
    const entry = this.programs[nth].latest;
    const message = entry?.association.peek();
    if (message === undefined) return false;
    const id = new DataView(message.buffer, message.byteOffset).getUint32(0);
    entry.taken.push({ id, message: message.slice() });
    entry.association.take();
    return true;
  }

  /** What holds at any time. */
  check() {
    const mates = new Map();
    const entries = this.programs.flatMap(({ history }) => history);
    const sent = new Map(entries.flatMap(({ accepted }) => accepted.map((sent) => [sent.id, sent])));
    for (const entry of entries) {
      const { association, accepted, taken } = entry;
      // In order, once, and from one association of the peer.
      const by = taken.length > 0 ? sent.get(taken[0].id)?.by : undefined;
      if (taken.length > 0 && by !== undefined) {
        assert.ok(!mates.has(by), "two associations take the messages of one");
        mates.set(by, entry);
        assert.deepEqual(taken.map(({ id }) => id), by.accepted.slice(0, taken.length).map(({ id }) => id));
        taken.forEach(({ message }, nth) => assert.deepEqual(message, by.accepted[nth].message));
      }
      assert.equal(association.accepted, accepted.length);
      assert.equal(association.taken, taken.length);
      const queued = association.received - association.taken;
      assert.ok(queued <= 1 || queued * (OVERHEAD + 4) <= BOUNDS.window);
      const rest = association.unacknowledged();
      assert.deepEqual(rest.map(({ message }) => message), accepted.slice(association.acknowledged).map(({ message }) => message));
      const cost = rest.reduce((sum, { message }) => sum + message.length + OVERHEAD, 0);
      assert.ok(rest.length <= 1 || cost <= BOUNDS.buffer);
    }
    for (const entry of entries) {
      const { acknowledged } = entry.association;
      const mate = mates.get(entry);
      // A peer that has started anew is not here to be asked.
      if (this.programs.includes(entry.peer)) assert.ok(acknowledged <= (mate?.taken.length ?? 0));
      const neverSent = entry.association.unacknowledged().filter(({ wasSent }) => !wasSent).length;
      assert.ok((mate?.association.received ?? 0) <= entry.accepted.length - neverSent);
    }
  }

  /** Carries on without a cut until nothing is left to do. */
  settle() {
    for (let steps = 0, goesOn = true; goesOn; steps++) {
      assert.ok(steps < 10_000, "it never ends");
      goesOn = false;
      for (const side of [0, 1]) {
        while (this.transmit(side, true)) goesOn = true;
        while (this.deliver(side)) goesOn = true;
        while (this.take(this.programs.indexOf(this.meeting.sides[side]))) goesOn = true;
      }
    }
  }
}

const nth = fc.nat({ max: 2 });
const side = fc.nat({ max: 1 });
const step = fc.oneof(
  { weight: 2, arbitrary: fc.tuple(fc.constant("meet"), nth, nth) },
  { weight: 3, arbitrary: fc.tuple(fc.constant("meet"), fc.constant(0), fc.constant(1)) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("cut")) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("restart"), nth) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("transmit"), side, fc.boolean()) },
  { weight: 8, arbitrary: fc.tuple(fc.constant("deliver"), side) },
  { weight: 5, arbitrary: fc.tuple(fc.constant("send"), nth, fc.oneof(fc.integer({ min: 4, max: 300 }), fc.constant(2000))) },
  { weight: 4, arbitrary: fc.tuple(fc.constant("take"), nth) },
  { weight: 1, arbitrary: fc.tuple(fc.constant("settle")) },
);

function play(steps) {
  const world = new World();
  for (const [name, ...rest] of steps) {
    if (name === "meet" && rest[0] === rest[1]) continue;
    if (name === "settle" && world.meeting === undefined) continue;
    world[name](...rest);
    world.check();
  }
  return world;
}

const RUNS = Number(process.env.RUNS ?? 3000);

test("whatever happens, each message is taken once and in order, and bounds are kept", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150, size: "max" }), (steps) => {
      const world = play(steps);
      // After whatever has happened, a meeting that lasts delivers everything.
      world.meet(0, 1);
      world.settle();
      world.check();
      const [one, other] = [world.programs[0].latest, world.programs[1].latest];
      for (const [from, to] of [[one, other], [other, one]]) {
        assert.equal(to.taken.length, from.accepted.length);
        assert.equal(from.association.acknowledged, from.accepted.length);
      }
    }),
    { numRuns: RUNS },
  );
});

test("without a restart and a third program, nothing is ever given up", () => {
  const calm = step.filter(([name, one, other]) => name !== "restart" && (name !== "meet" || one + other === 1));
  fc.assert(
    fc.property(fc.array(calm, { maxLength: 150, size: "max" }), (steps) => {
      const world = play(steps);
      world.meet(0, 1);
      world.settle();
      const [one, other] = world.programs;
      assert.deepEqual([one.history.length, other.history.length], [1, 1]);
      assert.deepEqual(one.latest.accepted.map(({ id }) => id), other.latest.taken.map(({ id }) => id));
      assert.deepEqual(other.latest.accepted.map(({ id }) => id), one.latest.taken.map(({ id }) => id));
    }),
    { numRuns: RUNS },
  );
});

/** A side in a meeting, with a peer that has said hello. */
function met(hello = {}) {
  const side = new Resumption(BOUNDS, name);
  const greet = (own) => {
    const peer = { own: new Uint8Array(16), peer: new Uint8Array(16), next: name(), received: 0, taken: 0, window: 1000, ...own };
    side.meet();
    assert.equal(side.next()[0], 0);
    side.receive(encodeHello(peer));
    return peer;
  };
  const { next } = greet(hello);
  return { side, next, greet };
}

const taken = ({ association }) => {
  const messages = [];
  for (let message; (message = association.peek()) !== undefined; association.take()) messages.push(message[0]);
  return messages;
};

test("a duplicate is dropped, and what comes before a hello is not taken", () => {
  const { side, greet } = met();
  for (const number of [0, 1, 0, 1, 2]) side.receive(encodeMessage(number, Uint8Array.of(number)));
  assert.deepEqual(taken(side), [0, 1, 2]);
  side.part();
  side.meet();
  side.receive(encodeMessage(7, Uint8Array.of(7)));
  side.receive(encodeAcknowledgement(7));
  side.part();
  greet();
  assert.deepEqual(taken(side), []);
});

test("a peer that breaks the rules is refused, and nothing changes", () => {
  const refused = {
    "a gap": [encodeMessage(1, new Uint8Array(1)), /missing/],
    "more than the window": [encodeMessage(0, new Uint8Array(1)), undefined, encodeMessage(1, new Uint8Array(800)), /window/],
    "a count of messages that were not sent": [encodeAcknowledgement(2), /not sent/],
    "a second hello": [encodeHello({ own: name(), peer: name(), next: name(), received: 0, taken: 0, window: 1 }), /second/],
    "an empty message": [new Uint8Array(0), /does not resume/],
    "another kind": [new TextEncoder().encode("{}"), /does not resume/],
    "a short header": [new Uint8Array([1, 0, 0]), /does not resume/],
    "a long acknowledgement": [new Uint8Array([2, ...new Array(9).fill(0)]), /does not resume/],
    "a count beyond all numbers": [new Uint8Array([2, ...new Array(8).fill(255)]), /range/],
  };
  for (const [what, steps] of Object.entries(refused)) {
    const { side } = met();
    side.association.offer(new Uint8Array(1));
    side.next();
    const reason = steps.pop();
    const last = steps.pop();
    for (const step of steps) if (step !== undefined) side.receive(step);
    const before = [side.association.received, side.association.acknowledged, side.association.accepted];
    assert.throws(() => side.receive(last), { name: "ViolationError", message: reason }, what);
    assert.deepEqual([side.association.received, side.association.acknowledged, side.association.accepted], before);
  }
});

test("a hello that cannot be is refused", () => {
  const zeros = new Uint8Array(16);
  const hello = (fields) => encodeHello({ own: zeros, peer: zeros, next: name(), received: 0, taken: 0, window: 1, ...fields });
  const version = hello({});
  version[1] = 2;
  for (const [bytes, reason] of [[version, /version/], [hello({}).subarray(0, 73), /too short/]]) {
    const side = new Resumption(BOUNDS, name);
    side.meet();
    assert.throws(() => side.receive(bytes), { name: "ViolationError", message: reason });
  }
  const echo = new Resumption(BOUNDS, name);
  echo.meet();
  assert.throws(() => echo.receive(echo.next()), /echo/);

  // A peer that has forgotten what it had, and one that has what was not sent.
  for (const [received, count] of [[0, 0], [2, 2], [1, 2], [2, 1]]) {
    const { side, next, greet } = met();
    side.association.offer(new Uint8Array(1));
    side.next();
    side.receive(encodeAcknowledgement(1));
    side.part();
    side.meet();
    const own = side.next().slice(2, 18);
    side.part();
    const again = () => greet({ own: next, peer: own, received, taken: count });
    assert.throws(again, { name: "ViolationError", message: /lost/ }, `${received}, ${count}`);
    assert.throws(() => greet({ next }), { name: "ViolationError", message: /forgotten/ });
  }
});
