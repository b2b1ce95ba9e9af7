/**
 * Noise_NNpsk0_25519_ChaChaPoly_SHA256, from https://noiseprotocol.org/noise.html (revision 34): two sides with a common
 * secret of 32 bytes agree on keys for one meeting.
 *
 * The pattern has two messages. An attacker without the secret can neither read nor take part, and one that learns it later
 * cannot read earlier meetings.
 *
 *     -> psk, e
 *     <- e, ee
 *
 * Only the primitives are of a library. The tests hold this file to published vectors.
 */

import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
import { x25519 } from "@noble/curves/ed25519.js";
import { hmac } from "@noble/hashes/hmac.js";
import { sha256 } from "@noble/hashes/sha2.js";

type Bytes = Uint8Array<ArrayBuffer>;

const NAME = "Noise_NNpsk0_25519_ChaChaPoly_SHA256";

/** The length of keys, of public keys and of hashes, in bytes. */
const KEY = 32;

/** The length of what authenticates a message, in bytes. */
export const TAG = 16;

const NOTHING = new Uint8Array(0);

function join(...parts: Uint8Array[]): Bytes {
  const joined = new Uint8Array(parts.reduce((length, part) => length + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
}

/** HKDF of section 4.3, with this many outputs. */
function derive(chainingKey: Uint8Array, input: Uint8Array, outputs: number): Uint8Array[] {
  const secret = hmac(sha256, chainingKey, input);
  const derived: Uint8Array[] = [];
  for (let nth = 1; nth <= outputs; nth++) {
    derived.push(hmac(sha256, secret, join(derived[nth - 2] ?? NOTHING, Uint8Array.of(nth))));
  }
  return derived;
}

/** A key with the number of the next message (section 5.1). A message that is replayed or out of order has a wrong number. */
export class CipherState {
  #next = 0;

  constructor(readonly key: Uint8Array) {}

  encrypt(plaintext: Uint8Array, data: Uint8Array = NOTHING): Bytes {
    return chacha20poly1305(this.key, this.#nonce(), data).encrypt(plaintext) as Bytes;
  }

  /** @throws {Error} if the message is not the next one that the other side has encrypted */
  decrypt(ciphertext: Uint8Array, data: Uint8Array = NOTHING): Bytes {
    return chacha20poly1305(this.key, this.#nonce(), data).decrypt(ciphertext) as Bytes;
  }

  #nonce(): Uint8Array {
    const nonce = new Uint8Array(12);
    const view = new DataView(nonce.buffer);
    // Beyond 2^53 messages a number is not exact. At a million messages a second that takes 285 years.
    view.setUint32(4, this.#next % 2 ** 32, true);
    view.setUint32(8, Math.floor(this.#next / 2 ** 32), true);
    this.#next++;
    return nonce;
  }
}

/** The keys of a finished handshake. */
export interface Keys {
  readonly send: CipherState;
  readonly receive: CipherState;
}

/** A side of the handshake. Each method is called once, in the order of the pattern. */
export class Handshake {
  #hash: Uint8Array;
  #chainingKey: Uint8Array;
  #cipher: CipherState;
  readonly #own: Uint8Array;

  /**
   * @param secret the common secret, 32 bytes
   * @param prologue what both sides have to agree on
   * @param own the private key of this side, only for tests
   */
  constructor(secret: Uint8Array, prologue: Uint8Array, own: Uint8Array = x25519.utils.randomSecretKey()) {
    if (secret.length !== KEY) throw new Error("the secret has 32 bytes");
    this.#own = own;
    this.#hash = this.#chainingKey = sha256(new TextEncoder().encode(NAME));
    this.#mixHash(prologue);
    const [chainingKey, hash, key] = derive(this.#chainingKey, secret, 3) as [Uint8Array, Uint8Array, Uint8Array];
    this.#chainingKey = chainingKey;
    this.#mixHash(hash);
    this.#cipher = new CipherState(key);
  }

  /** The first message, of the initiator. */
  writeFirst(payload: Uint8Array = NOTHING): Bytes {
    return join(this.#sendKey(), this.#encrypt(payload));
  }

  /** Takes the first message, and returns its payload. */
  readFirst(message: Uint8Array): Bytes {
    this.#receiveKey(message);
    return this.#decrypt(message.subarray(KEY));
  }

  /** The second message, of the responder. `first` is the message that it answers. */
  writeSecond(first: Uint8Array, payload: Uint8Array = NOTHING): { message: Bytes; keys: Keys } {
    const key = this.#sendKey();
    this.#mixKey(x25519.getSharedSecret(this.#own, first.subarray(0, KEY)));
    const message = join(key, this.#encrypt(payload));
    const [receive, send] = this.#split();
    return { message, keys: { send, receive } };
  }

  /** Takes the second message, and returns its payload. */
  readSecond(message: Uint8Array): { payload: Bytes; keys: Keys } {
    this.#receiveKey(message);
    this.#mixKey(x25519.getSharedSecret(this.#own, message.subarray(0, KEY)));
    const payload = this.#decrypt(message.subarray(KEY));
    const [send, receive] = this.#split();
    return { payload, keys: { send, receive } };
  }

  #sendKey(): Uint8Array {
    const key = x25519.getPublicKey(this.#own);
    this.#mixHash(key);
    this.#mixKey(key);
    return key;
  }

  #receiveKey(message: Uint8Array): void {
    if (message.length < KEY + TAG) throw new Error("a handshake message is too short");
    const key = message.subarray(0, KEY);
    this.#mixHash(key);
    this.#mixKey(key);
  }

  #mixHash(data: Uint8Array): void {
    this.#hash = sha256(join(this.#hash, data));
  }

  #mixKey(input: Uint8Array): void {
    const [chainingKey, key] = derive(this.#chainingKey, input, 2) as [Uint8Array, Uint8Array];
    this.#chainingKey = chainingKey;
    this.#cipher = new CipherState(key);
  }

  #encrypt(payload: Uint8Array): Bytes {
    const ciphertext = this.#cipher.encrypt(payload, this.#hash);
    this.#mixHash(ciphertext);
    return ciphertext;
  }

  #decrypt(ciphertext: Uint8Array): Bytes {
    const payload = this.#cipher.decrypt(ciphertext, this.#hash);
    this.#mixHash(ciphertext);
    return payload;
  }

  /** The keys of the initiator's messages, and of the responder's. */
  #split(): [CipherState, CipherState] {
    const [first, second] = derive(this.#chainingKey, NOTHING, 2) as [Uint8Array, Uint8Array];
    return [new CipherState(first), new CipherState(second)];
  }
}
