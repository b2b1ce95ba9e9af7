/**
 * What two pages tell each other: notes, such as a line of the chat, and parts of files.
 *
 * `arc-relay/resume` carries them, so each is taken once and in order, however often the WebSockets under it fail. What the
 * peer says is checked: it is a stranger's program.
 */

import type { Connection } from "../../js/src/index.js";
import { resume, type Peer } from "../../js/src/resume.js";

/** A note. `file` is the sender's number of a file. */
export type Note =
  | { kind: "chat"; text: string }
  | { kind: "offer"; file: number; name: string; size: number }
  /** All bytes were sent, and this is their hash. */
  | { kind: "end"; file: number; hash: string }
  /** The answer to `end`: the hash of what has arrived. */
  | { kind: "done"; file: number; hash: string }
  /** Ends a file of the side that sends this, or of the other. */
  | { kind: "cancel"; file: number; own: boolean };

export interface Part {
  file: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** What the page is told. */
export interface Listener {
  /** A peer is there that knows nothing yet: the first one, or the same page opened anew. */
  met(): void;
  note(note: Exclude<Note, { kind: "chat" }>): void;
  line(text: string): void;
  part(part: Part): void;
}

/** A line of the chat has at most so many characters. */
const LONGEST_TEXT = 4000;

/** A name of a file has at most so many characters. */
const LONGEST_NAME = 200;

/** So many lines of the chat may wait for the peer. */
const MOST_LINES = 1000;

const NOTE_KIND = 0;
const PART_KIND = 1;

/** The kind, and the number of the file. */
const PART_HEAD = 1 + 4;

/** The most bytes of a part: with the frame of resuming it is one encrypted record. */
export const PART = 65_000;

interface Line {
  text: string;
  delivered: () => void;
}

export class Talk {
  #peer: Peer | undefined;
  /** How many messages this page has sent to the peer, and what follows when it has taken them. */
  #posted = 0;
  #awaited: { number: number; act: () => void }[] = [];
  /** Lines that no peer is known to have taken. */
  #lines: Line[] = [];

  constructor(readonly listener: Listener) {}

  /** Talks by this connection, until it is closed. */
  async begin(connection: Connection): Promise<void> {
    try {
      for await (const peer of resume(connection)) void this.#meet(peer);
    } catch {
      // The connection is closed for good, and the page has been told.
    }
  }

  /** Says a line to this peer, or to the first one that comes. It is false if too many wait. */
  say(text: string, delivered: () => void): boolean {
    if (this.#lines.length >= MOST_LINES) return false;
    const line = { text, delivered };
    this.#lines.push(line);
    if (this.#peer !== undefined) this.#sayTo(this.#peer, line);
    return true;
  }

  /** Sends a note about a file to a peer. The promise rejects if it is gone. */
  note(peer: Peer, note: Note): Promise<void> {
    const text = new TextEncoder().encode(JSON.stringify(note));
    const bytes = new Uint8Array(1 + text.length);
    bytes[0] = NOTE_KIND;
    bytes.set(text, 1);
    return this.#post(peer, bytes);
  }

  /** Sends a part to a peer, and tells when that has taken it. The promise rejects if it is gone. */
  part(peer: Peer, { file, bytes }: Part, taken: () => void): Promise<void> {
    const message = new Uint8Array(PART_HEAD + bytes.length);
    message[0] = PART_KIND;
    new DataView(message.buffer).setUint32(1, file);
    message.set(bytes, PART_HEAD);
    return this.#post(peer, message, taken);
  }

  /** The peer that is there or comes again. */
  get peer(): Peer | undefined {
    return this.#peer;
  }

  async #meet(peer: Peer): Promise<void> {
    this.#peer = peer;
    this.#posted = 0;
    this.#awaited = [];
    peer.on("acknowledged", (count) => {
      while (peer === this.#peer && (this.#awaited[0]?.number ?? Infinity) <= count) this.#awaited.shift()?.act();
    });
    // Whether an earlier page has taken them or not: this one has not.
    for (const line of this.#lines) this.#sayTo(peer, line);
    this.listener.met();
    try {
      for await (const message of peer) this.#take(message);
    } catch {
      // As above.
    }
  }

  #sayTo(peer: Peer, line: Line): void {
    const sent = this.note(peer, { kind: "chat", text: line.text });
    this.#awaited.push({
      number: this.#posted,
      act: () => {
        this.#lines.splice(this.#lines.indexOf(line), 1);
        line.delivered();
      },
    });
    sent.catch(() => {}); // the next peer gets it
  }

  #post(peer: Peer, message: Uint8Array, taken?: () => void): Promise<void> {
    if (peer === this.#peer) {
      this.#posted++;
      if (taken !== undefined) this.#awaited.push({ number: this.#posted, act: taken });
    }
    return peer.send(message);
  }

  #take(message: Uint8Array<ArrayBuffer>): void {
    if (message[0] === PART_KIND && message.length > PART_HEAD) {
      const file = new DataView(message.buffer, message.byteOffset).getUint32(1);
      this.listener.part({ file, bytes: message.subarray(PART_HEAD) });
    } else if (message[0] === NOTE_KIND) {
      const note = parse(message.subarray(1));
      if (note?.kind === "chat") this.listener.line(note.text);
      else if (note !== undefined) this.listener.note(note);
    }
  }
}

export const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown, longest: number): value is string => typeof value === "string" && value.length <= longest;

/** A note that has all that it should, or nothing. */
function parse(bytes: Uint8Array): Note | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  return isNote(value as Record<string, unknown>) ? (value as Note) : undefined;
}

function isNote(note: Record<string, unknown>): boolean {
  switch (note.kind) {
    case "chat":
      return isText(note.text, LONGEST_TEXT);
    case "offer":
      return isCount(note.file) && isText(note.name, LONGEST_NAME) && isCount(note.size);
    case "end":
    case "done":
      return isCount(note.file) && isText(note.hash, 64);
    case "cancel":
      return isCount(note.file) && typeof note.own === "boolean";
    default:
      return false;
  }
}

/** A name that a file can be saved with: no folders, no control or reversing characters, not hidden, not too long. */
export function safeName(name: string): string {
  const clean = name
    .replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g, "")
    .replace(/[/\\:*?"<>|]/g, "_")
    .replace(/^[.\s]+|[.\s]+$/g, "");
  if (clean.length <= LONGEST_NAME) return clean || "file";
  const dot = clean.lastIndexOf(".");
  const end = dot > clean.length - 16 ? clean.slice(dot) : "";
  return clean.slice(0, LONGEST_NAME - end.length) + end;
}
