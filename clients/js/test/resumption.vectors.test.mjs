// The vectors for resuming of docs/protocol/vectors.json: frames both ways, frames that are refused, and whole sequences.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import test from "node:test";
import { decodeFrame, encodeAcknowledgement, encodeHello, encodeMessage, ViolationError } from "../dist/frames.js";
import { Resumption } from "../dist/resumption.js";

const { resuming } = JSON.parse(readFileSync(new URL("../../../docs/protocol/vectors.json", import.meta.url), "utf8"));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, "hex"));
const hex = (value) => value && Buffer.from(value).toString("hex");

/** The fields of a frame as the vectors have them. */
function fieldsOf({ kind, own, peer, next, received, taken, window, number, message }) {
  if (kind === "hello") return { hello: { own: hex(own), peer: hex(peer), next: hex(next), received, taken, window } };
  return kind === "message" ? { message: { before: number, content: hex(message) } } : { acknowledgement: taken };
}

function encode({ hello, message, acknowledgement }) {
  if (hello !== undefined) {
    const names = ["own", "peer", "next"].map((name) => [name, bytes(hello[name])]);
    return encodeHello({ ...hello, ...Object.fromEntries(names) });
  }
  return message !== undefined ? encodeMessage(message.before, bytes(message.content)) : encodeAcknowledgement(acknowledgement);
}

test("frames are encoded and decoded as specified", () => {
  assert.ok(resuming.frames.length > 0);
  for (const { frame, decode_only: decodesOnly = false, ...fields } of resuming.frames) {
    assert.deepEqual(fieldsOf(decodeFrame(bytes(frame))), fields);
    if (!decodesOnly) assert.equal(hex(encode(fields)), frame);
  }
});

test("what is no frame is refused", () => {
  assert.ok(resuming.refused.length > 0);
  for (const { frame, why } of resuming.refused) assert.throws(() => decodeFrame(bytes(frame)), ViolationError, why);
});

/** One side of a sequence. Each step is a method. */
class Side {
  #side;
  #resumption;
  #association;
  #hasEnded = false;

  constructor(side, { window, buffer, sides }) {
    this.#side = side;
    const names = sides[side].map(bytes);
    this.#resumption = new Resumption({ window, buffer }, () => {
      assert.ok(names.length > 0, "a name for each association, and one more");
      return names.shift();
    });
  }

  /** Plays a step, and returns what has to be the next one, if the rules leave no choice. */
  play({ do: name, side, ...step }) {
    if (side !== undefined && side !== this.#side) return undefined;
    const isFree = this.#hasEnded || ["out", "begun", "ends", "rest"].includes(name);
    if (!isFree) assert.equal(hex(this.#resumption.next()), undefined, "more is sent");
    return this[name](step);
  }

  meet() {
    this.#resumption.meet();
  }

  part() {
    this.#resumption.part();
    this.#hasEnded = false;
  }

  out({ frame }) {
    const isAcknowledgement = frame.startsWith("02");
    assert.equal(hex(this.#resumption.next(isAcknowledgement)), frame);
  }

  in({ frame }) {
    try {
      this.#resumption.receive(bytes(frame));
    } catch (error) {
      assert.ok(error instanceof ViolationError, String(error));
      this.#hasEnded = true;
      return "ends";
    }
    const before = this.#association;
    this.#association = this.#resumption.association;
    return before === this.#association ? undefined : "begun";
  }

  send({ message }) {
    assert.ok(this.#association.offer(bytes(message)));
  }

  full({ message }) {
    assert.ok(!this.#association.offer(bytes(message)));
  }

  take({ message }) {
    assert.equal(hex(this.#association.peek()), message);
    this.#association.take();
  }

  rest({ messages }) {
    const rest = this.#association.unacknowledged().map(({ message, wasSent }) => ({ message: hex(message), sent: wasSent }));
    assert.deepEqual(rest, messages);
  }

  begun() {}

  ends() {}
}

assert.ok(resuming.sequences.length > 0);
for (const { about, steps, ...sequence } of resuming.sequences) {
  for (const name of Object.keys(sequence.sides)) {
    test(`sequence, side ${name}: ${about}`, () => {
      const side = new Side(name, sequence);
      let due;
      for (const [nth, step] of steps.entries()) {
        const isOwn = step.side === undefined || step.side === name;
        const follows = ["begun", "ends"].find((told) => told === step.do && isOwn);
        assert.equal(follows, due, `step ${nth}: what follows`);
        try {
          due = side.play(step);
        } catch (error) {
          error.message = `step ${nth}, ${JSON.stringify(step)}: ${error.message}`;
          throw error;
        }
      }
      assert.equal(due, undefined, "the end");
    });
  }
}
