/**
 * The rules of docs/resuming.md, without a connection, a clock or a timer: frames in, frames out.
 *
 * 1. Call `meet` when a peer is there, and `part` when it has gone.
 * 2. Call `receive` with each binary message of the peer.
 * 3. Send what `next` returns, in this order, until it returns nothing. Do so after each other call, and
 *    never send in one meeting what `next` returned in an earlier one.
 * 4. An error of `receive` is final.
 */

import {
  decodeFrame,
  encodeAcknowledgement,
  encodeHello,
  encodeMessage,
  messageIn,
  NAME,
  ViolationError,
  type Bytes,
  type Hello,
} from "./frames.js";

/** What a message counts beside its length, in bounds: an empty one takes memory, too. */
const OVERHEAD = 64;

/** An acknowledgement is due at the latest when so much has been taken. */
const DUE = 64 << 10;

const costOf = (message: Uint8Array) => message.length + OVERHEAD;

const NONE = new Uint8Array(NAME);
const isEqual = (one: Uint8Array, other: Uint8Array) => one.every((byte, at) => byte === other[at]);

export interface Bounds {
  /** The most that messages without an acknowledgement may take. */
  buffer: number;
  /** The most that received messages may take that the program has not taken. */
  window: number;
}

/** A message that the peer's program is not known to have taken. */
export interface Unacknowledged {
  message: Bytes;
  /** Whether any part of it has left this program, so that the peer may have taken it. */
  wasSent: boolean;
}

/** The messages between two programs, for as long as both run and neither turns to a third. */
export class Association {
  readonly #bounds: Bounds;
  /** The frames of messages without an acknowledgement. The first one has the number `#acknowledged`. */
  #unacknowledged: Bytes[] = [];
  #unacknowledgedCost = 0;
  #acknowledged = 0;
  /** The number of the next message to send in this meeting. */
  #cursor = 0;
  /** The cost of the messages from `#acknowledged` to `#cursor`. */
  #underWay = 0;
  /** No message from this number on was ever sent. */
  #farthest = 0;
  #peerWindow = 0;
  /** Received messages that the program has not taken. */
  #queue: Bytes[] = [];
  #queueCost = 0;
  #taken = 0;
  /** The last count that the peer was told, and the cost of what was taken since. */
  #told = 0;
  #untoldCost = 0;

  constructor(bounds: Bounds) {
    this.#bounds = bounds;
  }

  /** How many messages `offer` has accepted. */
  get accepted(): number {
    return this.#acknowledged + this.#unacknowledged.length;
  }

  /** How many of them the peer's program has taken. */
  get acknowledged(): number {
    return this.#acknowledged;
  }

  get received(): number {
    return this.#taken + this.#queue.length;
  }

  get taken(): number {
    return this.#taken;
  }

  /** Whether the peer does not know yet of everything that was taken. */
  get owesAcknowledgement(): boolean {
    return this.#told < this.#taken;
  }

  /** Accepts a message for the peer, unless the buffer is full. One message has room in any empty buffer. */
  offer(message: Uint8Array): boolean {
    const cost = costOf(message);
    if (this.#unacknowledged.length > 0 && this.#unacknowledgedCost + cost > this.#bounds.buffer) return false;
    this.#unacknowledged.push(encodeMessage(this.accepted, message));
    this.#unacknowledgedCost += cost;
    return true;
  }

  /** The next message for the program, which stays the next one until `take` is called. */
  peek(): Bytes | undefined {
    return this.#queue[0];
  }

  /** The program has taken the next message. */
  take(): void {
    const message = this.#queue.shift();
    if (message === undefined) throw new Error("there is no message to take");
    const cost = costOf(message);
    this.#taken++;
    this.#queueCost -= cost;
    this.#untoldCost += cost;
  }

  unacknowledged(): Unacknowledged[] {
    return this.#unacknowledged.map((frame, nth) => ({
      message: messageIn(frame),
      wasSent: this.#acknowledged + nth < this.#farthest,
    }));
  }

  /** Goes on in a new meeting. */
  resume({ received, taken, window }: Hello): void {
    if (taken < this.#acknowledged || received < taken || received > this.#farthest) {
      throw new ViolationError("the peer has lost what it had, or has received what was not sent");
    }
    this.#cursor = received;
    this.#underWay = 0;
    for (let number = this.#acknowledged; number < received; number++) this.#underWay += costOf(messageIn(this.#frame(number)));
    this.#peerWindow = window;
    this.acknowledge(taken);
  }

  /** Begins. The peer knows nothing of this association, even if this side does. */
  begin({ window }: Hello): void {
    if (this.#acknowledged > 0 || this.received > 0) throw new ViolationError("the peer has forgotten what it had");
    this.#cursor = this.#underWay = this.#farthest = 0;
    this.#peerWindow = window;
  }

  /** The peer is told by a hello. */
  tell(): void {
    this.#told = this.#taken;
    this.#untoldCost = 0;
  }

  receive(number: number, message: Bytes): void {
    if (number < this.received) return; // a duplicate
    if (number > this.received) throw new ViolationError("a message is missing");
    const cost = costOf(message);
    if (this.#queue.length > 0 && this.#queueCost + cost > this.#bounds.window) {
      throw new ViolationError("the peer sends more than the window");
    }
    this.#queue.push(message);
    this.#queueCost += cost;
  }

  acknowledge(taken: number): void {
    if (taken > this.#cursor) throw new ViolationError("the peer has taken what was not sent");
    while (this.#acknowledged < taken) {
      const cost = costOf(messageIn(this.#unacknowledged.shift() as Bytes));
      this.#unacknowledgedCost -= cost;
      this.#underWay -= cost;
      this.#acknowledged++;
    }
  }

  /** The next frame to send, but for the hello. */
  next(acknowledges: boolean): Bytes | undefined {
    const isDue = this.#untoldCost >= Math.min(DUE, this.#bounds.window / 4);
    if (this.owesAcknowledgement && (acknowledges || isDue)) {
      this.tell();
      return encodeAcknowledgement(this.#taken);
    }
    const frame = this.#unacknowledged[this.#cursor - this.#acknowledged];
    if (frame === undefined) return undefined;
    const cost = costOf(messageIn(frame));
    if (this.#cursor > this.#acknowledged && this.#underWay + cost > this.#peerWindow) return undefined;
    this.#cursor++;
    this.#underWay += cost;
    this.#farthest = Math.max(this.#farthest, this.#cursor);
    return frame;
  }

  /** The frame of a message without an acknowledgement. */
  #frame(number: number): Bytes {
    return this.#unacknowledged[number - this.#acknowledged] as Bytes;
  }
}

/** One side: its association, and what it tells a peer that comes. */
export class Resumption {
  readonly #bounds: Bounds;
  readonly #random: () => Bytes;
  #association: Association | undefined;
  /** The names of both sides in the association. */
  #own: Bytes = NONE;
  #peer: Bytes = NONE;
  /** The name of this side in the next association. Each name is for one. */
  #next: Bytes;
  #isMeeting = false;
  /** The hello of this meeting, until it is sent. What it says decides, so it stays as it was when the meeting began. */
  #hello: Bytes | undefined;
  /** Whether the peer's hello has come in this meeting. */
  #isGreeted = false;

  /** @param random 16 new bytes at each call */
  constructor(bounds: Bounds, random: () => Bytes = () => crypto.getRandomValues(new Uint8Array(NAME))) {
    this.#bounds = bounds;
    this.#random = random;
    this.#next = random();
  }

  /** The association with the latest peer. It is another object if that is a new one. */
  get association(): Association | undefined {
    return this.#association;
  }

  /** A meeting begins. */
  meet(): void {
    this.#isMeeting = true;
    this.#isGreeted = false;
    this.#association?.tell();
    this.#hello = encodeHello({
      own: this.#own,
      peer: this.#peer,
      next: this.#next,
      received: this.#association?.received ?? 0,
      taken: this.#association?.taken ?? 0,
      window: this.#bounds.window,
    });
  }

  /** The meeting is over. */
  part(): void {
    this.#isMeeting = this.#isGreeted = false;
    this.#hello = undefined;
  }

  /**
   * Takes a message of the peer.
   *
   * @throws {ViolationError} if the peer breaks the rules
   */
  receive(bytes: Bytes): void {
    if (!this.#isMeeting) throw new Error("there is no meeting");
    const frame = decodeFrame(bytes);
    if (frame.kind === "hello") {
      if (this.#isGreeted) throw new ViolationError("a second hello in one meeting");
      this.#isGreeted = true;
      this.#greet(frame);
    } else if (this.#isGreeted) {
      const association = this.#association as Association;
      if (frame.kind === "message") association.receive(frame.number, frame.message);
      else association.acknowledge(frame.taken);
    }
    // What comes before a hello was meant for an earlier meeting.
  }

  /**
   * The next frame to send, if there is one.
   *
   * @param acknowledges whether to acknowledge now what was taken, and not wait until it is more
   */
  next(acknowledges = false): Bytes | undefined {
    if (!this.#isMeeting) return undefined;
    const hello = this.#hello;
    if (hello !== undefined) {
      this.#hello = undefined;
      return hello;
    }
    return this.#isGreeted ? this.#association?.next(acknowledges) : undefined;
  }

  #greet(hello: Hello): void {
    if (isEqual(hello.next, this.#next)) throw new ViolationError("the peer is this program, or an echo");
    const association = this.#association;
    if (association !== undefined && isEqual(hello.own, this.#peer) && isEqual(hello.peer, this.#own)) {
      association.resume(hello);
    } else if (association !== undefined && isEqual(hello.next, this.#peer)) {
      // The peer did not get the hello from which this side began the association. It does now.
      association.begin(hello);
    } else {
      // It was this side that did not get the peer's, or both begin now.
      const isBegun = isEqual(hello.peer, this.#next);
      this.#association = new Association(this.#bounds);
      this.#association.begin(hello);
      this.#peer = isBegun ? hello.own : hello.next;
      this.#own = this.#next;
      this.#next = this.#random();
    }
  }
}
