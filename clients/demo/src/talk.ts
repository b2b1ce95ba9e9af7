/**
 * What two pages tell each other: notes, such as a line of the chat, and parts of files. Nothing is lost or doubled when the
 * WebSockets under it fail.
 *
 * 1. Each meeting begins with a greeting of both: a random number of the page, and the last note that it has of the other.
 * 2. A note has a number. It is kept until the peer has acknowledged it, and sent again after each greeting.
 * 3. Parts of a file are not kept. The receiver tells how many bytes it has, after a greeting too, and the sender reads on
 *    from there. At most WINDOW bytes are under way.
 *
 * This file knows no document and no network. What the peer says is checked: it is a stranger's program.
 */

/** A note. `file` is the sender's number of a file. */
export type Note =
  | { kind: "chat"; text: string }
  | { kind: "offer"; file: number; name: string; size: number; type: string }
  /** All bytes were acknowledged, and this is their hash. */
  | { kind: "end"; file: number; hash: string }
  /** The answer to `end`: the hash of what has arrived. */
  | { kind: "done"; file: number; hash: string }
  /** Ends a file of the side that sends this, or of the other. */
  | { kind: "cancel"; file: number; own: boolean };

export interface Part {
  file: number;
  offset: number;
  bytes: Uint8Array<ArrayBuffer>;
}

/** What the page is told. */
export interface Listener {
  /** The peer is there, and all is sent again that it lacks. If it is another page than before, it knows of nothing. */
  met(isNew: boolean): void;
  note(note: Note): void;
  /** The peer has a note that `send` has returned this number for. */
  delivered(number: number): void;
  part(part: Part): void;
  /** The peer has so many bytes of a file of this side. */
  have(file: number, bytes: number): void;
}

/** A line of the chat has at most so many characters. */
export const LONGEST_TEXT = 4000;

/** A name of a file has at most so many characters. */
const LONGEST_NAME = 200;

/** So many notes may wait for the peer's acknowledgement. */
const MOST_PENDING = 1000;

const JSON_KIND = 0;
const PART_KIND = 1;

/** The kind, the number of the file, and the offset, which a double holds exactly. */
const PART_HEAD = 1 + 4 + 8;

/** The most bytes of a part: a whole message is one encrypted record. */
export const PART = 65_000;

type Message =
  | { type: "hello"; page: string; have: number; of: string }
  | { type: "note"; number: number; note: Note }
  | { type: "ack"; number: number }
  | { type: "have"; file: number; bytes: number };

export class Talk {
  readonly #page = hex(crypto.getRandomValues(new Uint8Array(8)));
  #peer = "";
  /** Whether both have greeted, in this meeting. */
  #hasMet = false;
  #next = 1;
  #pending: { number: number; note: Note }[] = [];
  /** The number of the peer's last note. */
  #last = 0;

  constructor(
    readonly transmit: (message: Uint8Array<ArrayBuffer>) => void,
    readonly listener: Listener,
  ) {}

  /** Whether parts can be sent. */
  get hasMet(): boolean {
    return this.#hasMet;
  }

  /** A meeting begins. */
  meet(): void {
    this.#hasMet = false;
    this.#tell({ type: "hello", page: this.#page, have: this.#last, of: this.#peer });
  }

  /** The meeting is over. */
  part(): void {
    this.#hasMet = false;
  }

  /** Sends a note, now or when the peer is there. Returns its number, or nothing if too many wait. */
  send(note: Note): number | undefined {
    if (this.#pending.length >= MOST_PENDING) return undefined;
    const number = this.#next++;
    this.#pending.push({ number, note });
    if (this.#hasMet) this.#tell({ type: "note", number, note });
    return number;
  }

  sendPart({ file, offset, bytes }: Part): void {
    if (!this.#hasMet) return;
    const message = new Uint8Array(PART_HEAD + bytes.length);
    const view = new DataView(message.buffer);
    message[0] = PART_KIND;
    view.setUint32(1, file);
    view.setFloat64(5, offset);
    message.set(bytes, PART_HEAD);
    this.transmit(message);
  }

  /** Tells how many bytes of a file have arrived. */
  sendHave(file: number, bytes: number): void {
    if (this.#hasMet) this.#tell({ type: "have", file, bytes });
  }

  receive(message: Uint8Array<ArrayBuffer>): void {
    if (message[0] === PART_KIND && message.length > PART_HEAD && this.#hasMet) {
      const view = new DataView(message.buffer, message.byteOffset);
      this.listener.part({ file: view.getUint32(1), offset: view.getFloat64(5), bytes: message.subarray(PART_HEAD) });
    } else if (message[0] === JSON_KIND) {
      const parsed = parse(message.subarray(1));
      if (parsed?.type === "hello") this.#greeted(parsed);
      // What was under way when the last meeting ended comes before the greeting, and again behind it.
      else if (parsed !== undefined && this.#hasMet) this.#told(parsed);
    }
  }

  #greeted({ page, have, of }: { page: string; have: number; of: string }): void {
    const isNew = page !== this.#peer;
    if (isNew) {
      this.#peer = page;
      this.#last = 0;
    }
    // A page that knew another page has none of these notes, whatever it says.
    this.#acknowledged(of === this.#page ? have : 0);
    this.#hasMet = true;
    if (isNew) {
      // Files that the earlier page knew are over. Lines of the chat are for any page.
      this.#pending = this.#pending.filter(({ note }) => note.kind === "chat");
    }
    for (const { number, note } of this.#pending) this.#tell({ type: "note", number, note });
    this.listener.met(isNew);
  }

  #told(message: Exclude<Message, { type: "hello" }>): void {
    switch (message.type) {
      case "note":
        // Numbers grow. A note that was sent again has been seen.
        if (message.number > this.#last) {
          this.#last = message.number;
          this.listener.note(message.note);
        }
        this.#tell({ type: "ack", number: this.#last });
        break;
      case "ack":
        this.#acknowledged(message.number);
        break;
      case "have":
        this.listener.have(message.file, message.bytes);
    }
  }

  #acknowledged(number: number): void {
    while (this.#pending[0] !== undefined && this.#pending[0].number <= number) {
      const { number } = this.#pending.shift() as { number: number };
      this.listener.delivered(number);
    }
  }

  #tell(message: Message): void {
    const text = new TextEncoder().encode(JSON.stringify(message));
    const bytes = new Uint8Array(1 + text.length);
    bytes[0] = JSON_KIND;
    bytes.set(text, 1);
    this.transmit(bytes);
  }
}

export const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isText = (value: unknown, longest: number): value is string => typeof value === "string" && value.length <= longest;

/** A message that has all that it should, or nothing. */
function parse(bytes: Uint8Array): Message | undefined {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return undefined;
  }
  if (typeof value !== "object" || value === null) return undefined;
  const message = value as Record<string, unknown>;
  switch (message.type) {
    case "hello":
      return isText(message.page, 64) && isText(message.of, 64) && isCount(message.have) ? (message as Message) : undefined;
    case "note":
      return isCount(message.number) && isNote(message.note) ? (message as Message) : undefined;
    case "ack":
      return isCount(message.number) ? (message as Message) : undefined;
    case "have":
      return isCount(message.file) && isCount(message.bytes) ? (message as Message) : undefined;
    default:
      return undefined;
  }
}

function isNote(value: unknown): value is Note {
  if (typeof value !== "object" || value === null) return false;
  const note = value as Record<string, unknown>;
  switch (note.kind) {
    case "chat":
      return isText(note.text, LONGEST_TEXT);
    case "offer":
      return isCount(note.file) && isText(note.name, LONGEST_NAME) && isCount(note.size) && isText(note.type, 200);
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
