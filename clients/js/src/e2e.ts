/**
 * End-to-end encryption: the relay sees lengths and times, and nothing else.
 *
 * ```js
 * const secret = newSecret();                        // 32 random bytes: shown to the peer as a link or a QR code
 * const peer = connect({ url, ...endToEnd(secret) });
 * ```
 *
 * The secret gives the pair code and the key that authenticates each meeting. docs/protocol.md has the details for other
 * languages, and docs/protocol/vectors.json test vectors.
 */

import { hkdf } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";
import { decode, encode } from "./base64url.js";
import { CipherState, Handshake, TAG, type Keys } from "./noise.js";
import type { Received, Session } from "./index.js";

type Bytes = Uint8Array<ArrayBuffer>;

const PROLOGUE = new TextEncoder().encode("arc-relay.e2e.v1");

/** The longest encrypted message, in bytes: the longest of Noise, which the relay forwards whole. */
const LONGEST = 65_535;

/** The most bytes of a message in one record: without the byte of its kind, and what authenticates it. */
const PART = LONGEST - TAG - 1;

/** The kinds of records. */
const LAST = 0;
const MORE = 1;
const FAREWELL = 2;

/** A secret for a new pair: 32 random bytes. */
export const newSecret = (): Bytes => crypto.getRandomValues(new Uint8Array(32));

/** A link that carries the secret in its fragment. Browsers send no fragment to a server. */
export function linkWith(secret: Uint8Array, page: string | URL): string {
  const link = new URL(page);
  link.hash = encode(secret);
  return link.href;
}

/**
 * The secret in a link.
 *
 * @throws {Error} if there is none
 */
export function secretIn(link: string | URL): Bytes {
  const secret = decode(new URL(link).hash.slice(1));
  if (secret.length !== 32) throw new Error("the link has no secret");
  return secret;
}

const derived = (secret: Uint8Array, purpose: string, length: number): Bytes =>
  hkdf(sha256, secret, undefined, new TextEncoder().encode(`arc-relay.e2e.v1 ${purpose}`), length) as Bytes;

/**
 * A secret for each device of one program, from one secret: the program listens at the code of each.
 *
 * @param device a name that tells the device from the others
 */
export const deviceSecret = (secret: Uint8Array, device: string): Bytes => derived(secret, `device ${device}`, 32);

/** The options of an encrypted connection: the pair code, and the session. Messages longer than `longest` bytes end a meeting. */
export function endToEnd(secret: Uint8Array, longest = 64 << 20): { code: string; session: (isFirst: boolean) => Session } {
  const key = derived(secret, "key", 32);
  return {
    code: encode(derived(secret, "pair code", 16)),
    session: (isFirst) => (isFirst ? new Responder(key, longest) : new Initiator(key, longest)),
  };
}

/** What both sides have in common: records, once there are keys. */
abstract class Records implements Session {
  abstract readonly opening: Bytes[];
  #keys: Keys | undefined;
  #parts: Bytes[] = [];
  #length = 0;
  #isOver = false;

  constructor(readonly longest: number) {}

  /** Takes the peer's part of the handshake. */
  protected abstract greet(message: Bytes): { keys: Keys; replies?: Bytes[] };

  receive(message: Bytes): Received {
    if (this.#keys === undefined) {
      const { keys, replies } = this.greet(message);
      this.#keys = keys;
      return { ready: true, ...(replies && { replies }) };
    }
    if (this.#isOver) throw new Error("a record behind the farewell");
    const record = this.#keys.receive.decrypt(message);
    const part = record.subarray(1);
    switch (record[0]) {
      case FAREWELL:
        this.#isOver = true;
        return { orderly: this.#parts.length === 0 };
      case MORE:
      case LAST:
        this.#parts.push(part);
        this.#length += part.length;
        if (this.#length > this.longest) throw new Error("a message is too long");
        return record[0] === LAST ? { message: this.#whole() } : {};
      default:
        throw new Error("an unknown kind of record");
    }
  }

  #whole(): Bytes {
    const parts = this.#parts;
    const whole = new Uint8Array(this.#length);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
    this.#parts = [];
    this.#length = 0;
    return whole;
  }

  *seal(message: Uint8Array): Generator<Bytes> {
    let at = 0;
    do {
      const end = Math.min(at + PART, message.length);
      yield this.#record(end === message.length ? LAST : MORE, message.subarray(at, end));
      at = end;
    } while (at < message.length);
  }

  farewell(): Bytes[] {
    return this.#keys === undefined ? [] : [this.#record(FAREWELL, new Uint8Array(0))];
  }

  #record(kind: number, part: Uint8Array): Bytes {
    const record = new Uint8Array(1 + part.length);
    record[0] = kind;
    record.set(part, 1);
    return (this.#keys as { send: CipherState }).send.encrypt(record);
  }
}

/** The side that came second. */
class Initiator extends Records {
  readonly #handshake: Handshake;
  readonly opening: Bytes[];

  constructor(key: Uint8Array, longest: number) {
    super(longest);
    this.#handshake = new Handshake(key, PROLOGUE);
    this.opening = [this.#handshake.writeFirst()];
  }

  protected greet(message: Bytes) {
    return { keys: this.#handshake.readSecond(message).keys };
  }
}

/** The side that waited. */
class Responder extends Records {
  readonly #handshake: Handshake;
  readonly opening: Bytes[] = [];

  constructor(key: Uint8Array, longest: number) {
    super(longest);
    this.#handshake = new Handshake(key, PROLOGUE);
  }

  protected greet(first: Bytes) {
    this.#handshake.readFirst(first);
    const { message, keys } = this.#handshake.writeSecond(first);
    return { keys, replies: [message] };
  }
}
