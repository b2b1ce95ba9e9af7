/**
 * Messages that survive the line: each arrives once and in order, however often the two reconnect.
 *
 * ```js
 * const peers = resume(connect({ url, code }));
 * for await (const peer of peers) {                        // one for each program that comes
 *   await peer.send("hello");                              // it waits while the buffer is full
 *   for await (const message of peer) console.log(message); // until the peer is another program
 * }
 * ```
 *
 * Both sides have to resume. docs/resuming.md has the rules, for other languages.
 */

import { bytesOf, type ClosedError, type Connection, type Message } from "./index.js";
import type { Bytes } from "./frames.js";
import { Resumption, type Association, type Unacknowledged } from "./resumption.js";

export type { Unacknowledged } from "./resumption.js";

export interface ResumeOptions {
  /** `send` waits while messages without an acknowledgement take more bytes than this. The default is 4 MiB. */
  buffer?: number;
  /** The peer sends no more bytes than this before the program has taken them. The default is 4 MiB. */
  window?: number;
}

/** So long an acknowledgement may wait for more to acknowledge, in milliseconds. */
const PATIENCE = 50;

/** The program at the other end has lost its memory of this one, or is another one. */
export class PeerReplacedError extends Error {
  constructor() {
    super("the program at the other end is another one");
    this.name = "PeerReplacedError";
  }
}

/**
 * Resumes on a connection, which is used for nothing else from now on.
 *
 * @throws {Error} if the connection has a peer already, as messages may be missing
 */
export const resume = (connection: Connection, options: ResumeOptions = {}): Peers => new Peers(connection, options);

/** The programs that come to the other end, one after the other: the next one ends the messages of the one before. */
export class Peers implements AsyncIterable<Peer> {
  readonly #connection: Connection;
  readonly #resumption: Resumption;
  #peer: Peer | undefined;
  /** A peer that the program has not been given. */
  #fresh: Peer | undefined;
  #meeting: AbortController | undefined;
  #isPumping = false;
  /** Runs while something has been taken that was not acknowledged. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #isAcknowledgementDue = false;
  #failure: Error | undefined;
  readonly #changes = new Changes();

  constructor(connection: Connection, { buffer = 4 << 20, window = 4 << 20 }: ResumeOptions) {
    if (connection.state === "paired") throw new Error("resume has to be called as soon as there is a connection");
    this.#connection = connection;
    this.#resumption = new Resumption({ buffer, window });
    connection.on("paired", () => {
      this.#meeting = new AbortController();
      this.#resumption.meet();
      void this.#pump();
    });
    connection.on("unpaired", () => this.#part());
    connection.on("message", (message) => this.#receive(message));
    connection.on("closed", (error) => this.#fail(error));
  }

  /**
   * The peers, from the latest one on.
   *
   * @throws {ClosedError} if the connection closes, and not by this program
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Peer, void, undefined> {
    for (;;) {
      const peer = this.#fresh;
      if (peer !== undefined) {
        this.#fresh = undefined;
        yield peer;
      } else if (this.#failure === undefined) {
        await this.#changes.next();
      } else if (isOwnClose(this.#failure)) {
        return;
      } else {
        throw this.#failure;
      }
    }
  }

  /** Acknowledges what was taken, and closes the connection. For what was sent, `flush` of the peer comes first. */
  async close(): Promise<void> {
    if (this.#meeting !== undefined && this.#resumption.association?.owesAcknowledgement === true) {
      const frame = this.#resumption.next(true);
      // It goes before the close, or the meeting is over.
      if (frame !== undefined) this.#connection.send(frame, this.#meeting.signal).catch(() => {});
    }
    await this.#connection.close();
  }

  #receive(message: Bytes): void {
    try {
      this.#resumption.receive(message);
    } catch (error) {
      // A peer that does not resume. Another one may come.
      this.#connection.reconnect(String(error));
      return;
    }
    const { association } = this.#resumption;
    if (association !== undefined && !this.#peer?.isWith(association)) {
      this.#peer?.end(new PeerReplacedError());
      this.#peer = this.#fresh = new Peer(association, () => this.#look());
      this.#changes.tell();
    }
    this.#peer?.look();
    void this.#pump();
  }

  /** Sends what the program has caused. */
  #look(): void {
    if (this.#meeting !== undefined && this.#resumption.association?.owesAcknowledgement === true) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#isAcknowledgementDue = true;
        void this.#pump();
      }, PATIENCE);
    }
    void this.#pump();
  }

  /** Sends what there is to send, one after the other. */
  async #pump(): Promise<void> {
    if (this.#isPumping) return;
    this.#isPumping = true;
    for (;;) {
      const signal = this.#meeting?.signal;
      const frame = this.#resumption.next(this.#isAcknowledgementDue);
      if (this.#resumption.association?.owesAcknowledgement !== true) this.#isAcknowledgementDue = false;
      if (signal === undefined || frame === undefined) break;
      // What is not sent in its meeting is made anew in the next.
      await this.#connection.send(frame, signal).catch(() => {});
    }
    this.#isPumping = false;
  }

  #part(): void {
    this.#resumption.part();
    this.#meeting?.abort();
    this.#meeting = undefined;
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  #fail(error: Error): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#part();
    this.#peer?.end(error);
    this.#changes.tell();
  }
}

/** One program at the other end, for as long as it runs and comes again. */
export class Peer extends EventTarget implements AsyncIterable<Bytes> {
  readonly #association: Association;
  readonly #changed: () => void;
  #end: Error | undefined;
  #isIterating = false;
  #acknowledged = 0;
  /** Sends come one after the other. */
  #sending: Promise<unknown> = Promise.resolve();
  readonly #changes = new Changes();

  /** Peers come from an iteration of `Peers`. */
  constructor(association: Association, changed: () => void) {
    super();
    this.#association = association;
    this.#changed = changed;
  }

  /** How many messages `send` has accepted. */
  get accepted(): number {
    return this.#association.accepted;
  }

  /** How many of them the peer's program has taken. */
  get acknowledged(): number {
    return this.#association.acknowledged;
  }

  /** The messages that the peer's program is not known to have taken. Once the peer is another one, it may be of use to send them again. */
  get unacknowledged(): Unacknowledged[] {
    return this.#association.unacknowledged();
  }

  /** Calls `listener` with the count of acknowledged messages when it has grown. Returns a function that ends that. */
  on(kind: "acknowledged", listener: (count: number) => void): () => void {
    const wrapped = (event: Event) => listener((event as CustomEvent<number>).detail);
    this.addEventListener(kind, wrapped);
    return () => this.removeEventListener(kind, wrapped);
  }

  /**
   * Accepts a message for the peer. It waits while the buffer is full, with or without a connection.
   *
   * @throws {PeerReplacedError} (the promise rejects) if the peer is another one before there is room
   * @throws {ClosedError} (the promise rejects) if the connection closes for good before there is room
   */
  send(message: Message): Promise<void> {
    const sent = this.#sending.then(() => this.#send(bytesOf(message)));
    this.#sending = sent.catch(() => {});
    return sent;
  }

  /**
   * Waits until the peer's program has taken everything that was sent before.
   *
   * @throws {PeerReplacedError} (the promise rejects) if the peer is another one before that
   * @throws {ClosedError} (the promise rejects) if the connection closes for good before that
   */
  async flush(): Promise<void> {
    await this.#sending;
    const { accepted } = this;
    while (this.acknowledged < accepted) {
      if (this.#end !== undefined) throw this.#end;
      await this.#changes.next();
    }
  }

  /**
   * The peer's messages. One is taken, and acknowledged, when the loop asks for the next, or is left. The iteration ends when
   * the peer is another one, behind everything that was received of this one.
   *
   * @throws {ClosedError} if the connection closes, and not by this program
   * @throws {Error} if there is another iteration already
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Bytes, void, undefined> {
    if (this.#isIterating) throw new Error("messages are taken one after the other, by one iteration");
    this.#isIterating = true;
    try {
      for (;;) {
        const message = this.#association.peek();
        if (message !== undefined) {
          try {
            yield message;
          } finally {
            this.#association.take();
            this.#changed();
          }
        } else if (this.#end === undefined) {
          await this.#changes.next();
        } else if (isOwnClose(this.#end) || this.#end instanceof PeerReplacedError) {
          return;
        } else {
          throw this.#end;
        }
      }
    } finally {
      this.#isIterating = false;
    }
  }

  /** @internal */
  isWith(association: Association): boolean {
    return association === this.#association;
  }

  /** @internal Something has been received. */
  look(): void {
    this.#changes.tell();
    if (this.acknowledged === this.#acknowledged) return;
    this.#acknowledged = this.acknowledged;
    this.dispatchEvent(new CustomEvent("acknowledged", { detail: this.#acknowledged }));
  }

  /** @internal */
  end(error: Error): void {
    this.#end ??= error;
    this.#changes.tell();
  }

  async #send(message: Uint8Array): Promise<void> {
    for (;;) {
      if (this.#end !== undefined) throw this.#end;
      if (this.#association.offer(message)) break;
      await this.#changes.next();
    }
    this.#changed();
  }
}

/** Wakes what waits for a change. */
class Changes {
  #waiting: (() => void)[] = [];

  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  tell(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

const isOwnClose = (error: Error) => (error as Partial<ClosedError>).code === 1000;
