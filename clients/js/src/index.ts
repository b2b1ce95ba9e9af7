/**
 * Joins two programs that know the same pair code, by an arc-relay.
 *
 * ```js
 * const peer = connect({ url: "wss://relay.example", code });
 * for await (const message of peer) await peer.send(message); // an echo
 * ```
 *
 * A connection outlives the WebSockets that it consists of: it reconnects until it is closed, or until the relay says that
 * coming again is of no use. A message that is under way when a WebSocket fails may or may not have arrived.
 */

import { encode } from "./base64url.js";
import { actionOf, Attempts, secondsIn } from "./closing.js";

export { actionOf, pauseBefore, type Action } from "./closing.js";

/** What this client and the relay speak beside the peer's messages. */
const SUBPROTOCOL = "arc-relay.v1";

/** A WebSocket as browsers have it, and the packages `ws` and `undici`. */
export type WebSocketConstructor = new (url: string, protocols: string[]) => WebSocket;

/** Stands between the messages of a program and those of the relay, for one meeting with a peer: see `arc-relay/e2e`. */
export interface Session {
  /** What is sent at once. */
  readonly opening: Uint8Array<ArrayBuffer>[];
  /** Takes a message of the peer. An error ends the meeting. */
  receive(message: Uint8Array<ArrayBuffer>): Received;
  /** What is sent for a message of the program. Called once the session is ready. */
  seal(message: Uint8Array): Iterable<Uint8Array<ArrayBuffer>>;
  /** What is sent before the connection is closed. */
  farewell(): Uint8Array<ArrayBuffer>[];
}

/** What a message of the peer leads to. */
export interface Received {
  /** What is sent at once. */
  replies?: Uint8Array<ArrayBuffer>[];
  /** Whether the session is ready for messages from now on. */
  ready?: boolean;
  /** A whole message for the program. */
  message?: Uint8Array<ArrayBuffer>;
  /** Whether the peer has taken leave. */
  orderly?: boolean;
}

export interface Options {
  /** The relay: `ws:` or `wss:`, or `http:` or `https:` for the same. A query is kept. */
  url: string | URL;
  /** The pair code. Any program that knows it may join, so it has to be hard to guess: 22 random characters of Base64. */
  code: string;
  /** An access token or a ticket of the relay's operator. It does not get into the URL. */
  token?: string;
  /** Tells this program from its peer when it comes again. Random for each connection unless it is given. */
  side?: string;
  /** Encrypts: `endToEnd` of `arc-relay/e2e` makes it. The first side is the one that waited. */
  session?: (isFirst: boolean) => Session;
  /** `send` waits while more bytes than this are buffered. The default is 256 KiB. */
  highWater?: number;
  /** The longest message, and the most bytes that wait for an iteration. More close the connection. The default is 64 MiB. */
  maxQueue?: number;
  /** After so many milliseconds without a byte the relay is asked for one. The default is 25,000. */
  heartbeat?: number;
  /** How long an attempt to connect and an answer to a heartbeat may take, in milliseconds. The default is 20,000. */
  patience?: number;
  /** The class for WebSockets. The default is the global one, which Node has since version 22. */
  WebSocket?: WebSocketConstructor;
}

/** What can be sent. A string arrives as its UTF-8. */
export type Message = Uint8Array | ArrayBuffer | string;

export const bytesOf = (message: Message): Uint8Array =>
  typeof message === "string" ? new TextEncoder().encode(message)
  : message instanceof ArrayBuffer ? new Uint8Array(message)
  : message;

/** Where a connection stands. */
export type State = "connecting" | "waiting" | "paired" | "closed";

/** Why a connection has closed for good. */
export class ClosedError extends Error {
  constructor(
    /** The close code, as in docs/protocol.md. 1000 if the program closed it. */
    readonly code: number,
    reason: string,
  ) {
    super(reason);
    this.name = "ClosedError";
  }
}

/** The events of a connection, with what each carries as `detail`. */
export interface Events {
  /** The state has changed. */
  state: State;
  /** A peer is there. After each of these, the two begin anew. */
  paired: undefined;
  /** The peer has gone. `orderly` says that an encrypted peer has taken leave: nothing it sent is missing. */
  unpaired: { orderly: boolean };
  message: Uint8Array<ArrayBuffer>;
  /** The relay is about to stop, within so many seconds. */
  draining: number;
  /** The next attempt comes after so many milliseconds. */
  reconnecting: { code: number; reason: string; pause: number };
  /** The connection is closed for good. */
  closed: ClosedError;
}

/** How often a sender looks whether buffered bytes have gone, in milliseconds. No event tells it. */
const LOOK = 20;

/** Begins a connection. It never throws: what goes wrong is told by the event `closed`. */
export const connect = (options: Options): Connection => new Connection(options);

/** A connection to the peer, by a relay. */
export class Connection extends EventTarget implements AsyncIterable<Uint8Array<ArrayBuffer>> {
  readonly #options: Required<Omit<Options, "token" | "session">> & Pick<Options, "token" | "session">;
  #state: State = "connecting";
  #socket: WebSocket | undefined;
  #session: Session | undefined;
  #isFirst = false;
  #isOrderly = false;
  #closed: ClosedError | undefined;
  readonly #attempts = new Attempts();
  #after: number | undefined;
  /** Whether no attempt follows. */
  #isOver = false;
  /** Whether the relay asked for the pause. */
  #isToldToWait = false;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #watch: ReturnType<typeof setInterval> | undefined;
  /** The time of the last sign of life. */
  #lastLife = 0;
  #isAsked = false;
  #buffered = 0;
  #isClosing = false;
  /** Sends come one after the other. */
  #sending: Promise<unknown> = Promise.resolve();
  #changed: (() => void)[] = [];
  /** Messages that wait for an iteration, once there is one. */
  #queue: Uint8Array<ArrayBuffer>[] | undefined;
  #queued = 0;

  constructor(options: Options) {
    super();
    const random = crypto.getRandomValues(new Uint8Array(16));
    this.#options = {
      side: encode(random),
      highWater: 256 << 10,
      maxQueue: 64 << 20,
      heartbeat: 25_000,
      patience: 20_000,
      WebSocket: globalThis.WebSocket as WebSocketConstructor,
      ...options,
    };
    this.#open();
  }

  /** Where the connection stands. */
  get state(): State {
    return this.#state;
  }

  /** Calls `listener` with the detail of each event of this kind. Returns a function that ends that. */
  on<K extends keyof Events>(kind: K, listener: (detail: Events[K]) => void): () => void {
    const wrapped = (event: Event) => listener((event as CustomEvent<Events[K]>).detail);
    this.addEventListener(kind, wrapped);
    return () => this.removeEventListener(kind, wrapped);
  }

  /**
   * Sends a message to the peer. It waits until there is one, and until what is buffered has gone.
   *
   * Messages arrive in the order of the calls.
   *
   * @param signal gives a message up of which nothing has been handed over to the current WebSocket: the promise rejects
   * @throws {ClosedError} (the promise rejects) if the connection is closed before the message was handed over
   */
  send(message: Message, signal?: AbortSignal): Promise<void> {
    const sent = this.#sending.then(() => this.#send(bytesOf(message), signal));
    this.#sending = sent.catch(() => {});
    return sent;
  }

  /**
   * Gives the WebSocket up, and comes again: when the device has another network, or the peer makes no sense.
   *
   * Without an open WebSocket, it ends the pause or the attempt, and tries at once: at most once in 10 s, so a program may call it
   * as often as it likes. A pause that the relay asked for stays.
   */
  reconnect(reason = "the program asked for it"): void {
    if (this.#socket !== undefined && this.#socket.readyState !== 0 /* connecting */) return this.#drop(4002, reason);
    if (this.#isOver || this.#isClosing || this.#isToldToWait || !this.#attempts.hurry(Date.now())) return;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    const socket = this.#socket;
    this.#forget();
    socket?.close();
    this.#open();
    this.#tell("reconnecting", { code: 4002, reason, pause: 0 });
  }

  /** Closes the connection for good, behind what was sent. Without a peer, nothing is waited for. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#state === "paired") {
      await Promise.race([this.#sending, this.#leftAlone()]);
      if (this.#state === "paired") for (const message of this.#session?.farewell() ?? []) this.#socket?.send(message);
    }
    this.#end(new ClosedError(1000, "closed by this program"));
  }

  /** Waits until there is no peer. */
  async #leftAlone(): Promise<void> {
    while (this.#state === "paired") await this.#change();
  }

  /**
   * The peer's messages, from the first call on. It ends when the program closes the connection.
   *
   * @throws {ClosedError} if the connection closes for another reason
   */
  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array<ArrayBuffer>, void, undefined> {
    this.#queue ??= [];
    for (;;) {
      const message = this.#queue.shift();
      if (message !== undefined) {
        this.#queued -= message.length;
        yield message;
      } else if (this.#closed === undefined) {
        await this.#change();
      } else if (this.#closed.code === 1000) {
        return;
      } else {
        throw this.#closed;
      }
    }
  }

  async #send(bytes: Uint8Array, signal?: AbortSignal): Promise<void> {
    let parts: Iterator<Uint8Array<ArrayBuffer>> | undefined;
    let part: IteratorResult<Uint8Array<ArrayBuffer>> | undefined;
    let socket: WebSocket | undefined;
    for (;;) {
      if (this.#closed !== undefined) throw this.#closed;
      // With another peer, the message begins anew.
      if (socket !== this.#socket) parts = part = undefined;
      if (parts === undefined) signal?.throwIfAborted();
      socket = this.#socket;
      if (this.#state !== "paired" || socket === undefined) {
        await this.#change();
      } else if (socket.bufferedAmount > this.#options.highWater) {
        await new Promise((resolve) => setTimeout(resolve, LOOK));
      } else {
        parts ??= (this.#session?.seal(bytes) ?? [bytes as Uint8Array<ArrayBuffer>])[Symbol.iterator]();
        part ??= parts.next();
        socket.send(part.value);
        part = parts.next();
        if (part.done === true) return;
      }
    }
  }

  /** Waits until something has changed that a sender or an iteration waits for. */
  #change(): Promise<void> {
    return new Promise((resolve) => this.#changed.push(resolve));
  }

  #tell<K extends keyof Events>(kind: K, detail: Events[K]): void {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }

  #enter(state: State): void {
    if (state !== this.#state) {
      this.#state = state;
      this.#tell("state", state);
    }
    for (const resolve of this.#changed.splice(0)) resolve();
  }

  #open(): void {
    let socket: WebSocket;
    try {
      socket = new this.#options.WebSocket(this.#target(), [SUBPROTOCOL, ...this.#token()]);
    } catch (error) {
      // A URL that is none, or a page that may not connect to it.
      queueMicrotask(() => this.#end(new ClosedError(4400, String(error))));
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    this.#isFirst = this.#isAsked = this.#isToldToWait = false;
    this.#buffered = 0;
    this.#lastLife = Date.now();
    // Events of a WebSocket that was given up do not count.
    const current = (act: () => void) => {
      if (socket === this.#socket) act();
    };
    socket.onopen = () =>
      current(() => {
        this.#attempts.open(Date.now());
        if (socket.protocol !== SUBPROTOCOL) this.#end(new ClosedError(4400, `the relay does not speak ${SUBPROTOCOL}`));
      });
    socket.onmessage = ({ data }) => current(() => this.#receive(data as string | ArrayBuffer));
    socket.onclose = ({ code, reason }) => current(() => this.#lose(code, reason));
    socket.onerror = () => {}; // the end follows, and Node takes an error that nothing listens to for fatal
    this.#watch = setInterval(() => this.#look(socket), Math.min(1000, this.#options.heartbeat));
  }

  #target(): string {
    const url = new URL(this.#options.url);
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("pair", this.#options.code);
    url.searchParams.set("side", this.#options.side);
    return url.href;
  }

  #token(): string[] {
    const { token } = this.#options;
    return token === undefined ? [] : [`arc-relay.token.${encode(new TextEncoder().encode(token))}`];
  }

  #receive(data: string | ArrayBuffer): void {
    this.#lastLife = Date.now();
    this.#isAsked = false;
    if (typeof data === "string") this.#control(data);
    else this.#deliver(new Uint8Array(data));
  }

  /** Takes a control message of the relay. Those of a later version are ignored, and what is none. */
  #control(text: string): void {
    let control: { type?: unknown; within?: unknown; after?: unknown } | null;
    try {
      control = JSON.parse(text);
    } catch {
      return;
    }
    switch (control?.type) {
      case "waiting":
        this.#isFirst = true;
        this.#enter("waiting");
        break;
      case "paired":
        this.#isOrderly = false;
        this.#session = this.#options.session?.(this.#isFirst);
        for (const message of this.#session?.opening ?? []) this.#socket?.send(message);
        if (this.#session === undefined) this.#meet();
        break;
      case "draining":
        this.#tell("draining", secondsIn(control.within));
        break;
      case "retry":
        this.#after = secondsIn(control.after);
    }
  }

  #meet(): void {
    this.#attempts.meet(Date.now());
    this.#enter("paired");
    if (this.#state === "paired") this.#tell("paired", undefined);
  }

  #deliver(bytes: Uint8Array<ArrayBuffer>): void {
    if (this.#session === undefined) return this.#hand(bytes);
    let received: Received;
    try {
      received = this.#session.receive(bytes);
    } catch (error) {
      // A relay that changes messages, or a peer with another secret.
      this.#drop(4002, String(error));
      return;
    }
    const socket = this.#socket;
    for (const reply of received.replies ?? []) socket?.send(reply);
    if (received.ready === true) this.#meet();
    // A listener may have given it up.
    if (socket !== this.#socket) return;
    if (received.message !== undefined) this.#hand(received.message);
    if (received.orderly === true && socket === this.#socket) this.#isOrderly = true;
  }

  #hand(message: Uint8Array<ArrayBuffer>): void {
    this.#tell("message", message);
    if (this.#queue === undefined) return;
    this.#queued += message.length;
    if (this.#queued > this.#options.maxQueue) {
      this.#end(new ClosedError(1009, "messages come faster than they are taken"));
      return;
    }
    this.#queue.push(message);
    for (const resolve of this.#changed.splice(0)) resolve();
  }

  /** Looks whether the relay is there. */
  #look(socket: WebSocket): void {
    const buffered = socket.bufferedAmount;
    // What leaves the buffer is received by the relay's system. An answer to a heartbeat waits behind it.
    if (buffered < this.#buffered) this.#lastLife = Date.now();
    this.#buffered = buffered;
    const silence = Date.now() - this.#lastLife;
    if (socket.readyState === 0 /* connecting */) {
      if (silence > this.#options.patience) this.#drop(1006, "no answer");
    } else if (this.#isAsked) {
      if (silence > this.#options.heartbeat + this.#options.patience) this.#drop(1006, "no answer to a heartbeat");
    } else if (silence > this.#options.heartbeat && socket.readyState === 1 /* open */) {
      this.#isAsked = true;
      socket.send('{"type":"ping"}');
    }
  }

  /** Gives the WebSocket up. */
  #drop(code: number, reason: string): void {
    const socket = this.#socket;
    this.#lose(code, reason);
    socket?.close();
  }

  /** Goes on after the end of a WebSocket. */
  #lose(code: number, reason: string): void {
    const wasPaired = this.#state === "paired";
    const orderly = this.#isOrderly;
    this.#forget();
    const pause = this.#isClosing ? undefined : this.#attempts.lose(code, this.#after, Date.now(), Math.random());
    this.#after = undefined;
    this.#isToldToWait = actionOf(code) === "later";
    // A listener of what follows may end the pause, or the connection. It does not undo an end for good.
    const retry = (this.#retry = pause === undefined ? undefined : setTimeout(() => this.#open(), pause));
    const isSame = () => this.#retry === retry && this.#closed === undefined;
    this.#isOver = pause === undefined;
    if (wasPaired || pause !== undefined) this.#enter("connecting");
    if (wasPaired && isSame()) this.#tell("unpaired", { orderly });
    if (this.#isClosing || !isSame()) return;
    if (pause === undefined) this.#end(new ClosedError(code, reason));
    else this.#tell("reconnecting", { code, reason, pause });
  }

  #forget(): void {
    clearInterval(this.#watch);
    this.#socket = undefined;
    this.#session = undefined;
    this.#isOrderly = false;
  }

  #end(error: ClosedError): void {
    if (this.#closed !== undefined) return;
    this.#closed = error;
    this.#isOver = true;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    this.#forget();
    socket?.close(1000);
    this.#enter("closed");
    this.#tell("closed", error);
  }
}
