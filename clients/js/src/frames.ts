/** The frames of docs/resuming.md: what a resuming connection sends as binary messages. */

export type Bytes = Uint8Array<ArrayBuffer>;

/** The first frame of each side in each meeting. */
export interface Hello {
  kind: "hello";
  /** The name of this side in its association. Zeros are none. */
  own: Bytes;
  /** The name of the other side in that association. */
  peer: Bytes;
  /** The name that this side takes in its next association. */
  next: Bytes;
  /** How many messages this side has received in that association. */
  received: number;
  /** How many of them its program has taken. */
  taken: number;
  /** How much may be under way to this side. */
  window: number;
}

export type Frame =
  | Hello
  /** A message of the program, with the count of the messages before it. */
  | { kind: "message"; number: number; message: Bytes }
  /** The program has taken so many messages. */
  | { kind: "acknowledgement"; taken: number };

/** The peer has broken the rules of docs/resuming.md, or does not know them. */
export class ViolationError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "ViolationError";
  }
}

/** The bytes of a name: random ones are never equal by chance. */
export const NAME = 16;

const HELLO = 0;
const MESSAGE = 1;
const ACKNOWLEDGEMENT = 2;

const VERSION = 1;
const COUNTS = 2 + 3 * NAME;
const HELLO_LENGTH = COUNTS + 3 * 8;
const HEADER = 1 + 8;

export function encodeHello(hello: Omit<Hello, "kind">): Bytes {
  const frame = new Uint8Array(HELLO_LENGTH);
  frame[0] = HELLO;
  frame[1] = VERSION;
  [hello.own, hello.peer, hello.next].forEach((name, nth) => frame.set(name, 2 + NAME * nth));
  [hello.received, hello.taken, hello.window].forEach((count, nth) => putCount(frame, COUNTS + 8 * nth, count));
  return frame;
}

export function encodeMessage(number: number, message: Uint8Array): Bytes {
  const frame = new Uint8Array(HEADER + message.length);
  frame[0] = MESSAGE;
  putCount(frame, 1, number);
  frame.set(message, HEADER);
  return frame;
}

export function encodeAcknowledgement(taken: number): Bytes {
  const frame = new Uint8Array(HEADER);
  frame[0] = ACKNOWLEDGEMENT;
  putCount(frame, 1, taken);
  return frame;
}

/** The message in a frame that `encodeMessage` has made. */
export const messageIn = (frame: Bytes): Bytes => frame.subarray(HEADER);

/** @throws {ViolationError} if the bytes are no frame */
export function decodeFrame(frame: Bytes): Frame {
  const kind = frame[0];
  if (kind === HELLO) {
    if (frame[1] !== VERSION) throw new ViolationError("the peer has another version of resuming");
    // A later version may append fields.
    if (frame.length < HELLO_LENGTH) throw new ViolationError("a hello is too short");
    const name = (nth: number) => frame.slice(2 + NAME * nth, 2 + NAME * (nth + 1));
    const count = (nth: number) => countAt(frame, COUNTS + 8 * nth);
    return { kind: "hello", own: name(0), peer: name(1), next: name(2), received: count(0), taken: count(1), window: count(2) };
  }
  if (kind === MESSAGE && frame.length >= HEADER) {
    return { kind: "message", number: countAt(frame, 1), message: messageIn(frame) };
  }
  if (kind === ACKNOWLEDGEMENT && frame.length === HEADER) {
    return { kind: "acknowledgement", taken: countAt(frame, 1) };
  }
  throw new ViolationError("the peer does not resume: it sends other messages");
}

function putCount(frame: Bytes, at: number, count: number): void {
  new DataView(frame.buffer, frame.byteOffset).setBigUint64(at, BigInt(count));
}

function countAt(frame: Bytes, at: number): number {
  const count = Number(new DataView(frame.buffer, frame.byteOffset).getBigUint64(at));
  if (!Number.isSafeInteger(count)) throw new ViolationError("a count is out of range");
  return count;
}
