/** Files in both directions, piece by piece: neither side has a whole file in its memory. */

import { sha256 } from "@noble/hashes/sha2.js";
import { hex, PART, safeName, type Note, type Part, type Talk } from "./talk.js";

/** The most bytes of a file that are under way. */
const WINDOW = 4 << 20;

/** So many bytes are read of a file at once. */
const READ = 1 << 20;

/** The receiver tells what it has after so many bytes. */
const STEP = 256 << 10;

/** So many bytes are collected before they become a piece, which the browser may keep on disk. */
const PIECE = 4 << 20;

/** What a transfer shows. */
export interface View {
  progress(bytes: number): void;
  /** All has arrived. The hashes of both sides are the same, or not. */
  done(own: string, peer: string): void;
  /** A file that has arrived can be saved. */
  saved(blob: Blob, name: string): void;
  failed(reason: string): void;
}

class Outgoing {
  readonly hash = sha256.create();
  /** So many bytes went into the hash: it is computed once, though parts may be read again. */
  hashed = 0;
  read = 0;
  acknowledged = 0;
  result: string | undefined;
  /** Whether the peer was told the hash. */
  isEnded = false;

  constructor(
    readonly number: number,
    readonly file: File,
    readonly view: View,
  ) {}
}

class Incoming {
  readonly hash = sha256.create();
  received = 0;
  told = 0;
  #pieces: Blob[] = [];
  #parts: Uint8Array<ArrayBuffer>[] = [];
  #length = 0;

  constructor(
    readonly number: number,
    readonly name: string,
    readonly size: number,
    readonly view: View,
  ) {}

  take(bytes: Uint8Array<ArrayBuffer>): void {
    this.hash.update(bytes);
    this.received += bytes.length;
    this.#parts.push(bytes);
    this.#length += bytes.length;
    if (this.#length >= PIECE) this.#close();
  }

  #close(): void {
    this.#pieces.push(new Blob(this.#parts));
    this.#parts = [];
    this.#length = 0;
  }

  /** The whole. It gets no type: a browser is to save it, and not to open it. */
  blob(): Blob {
    this.#close();
    return new Blob(this.#pieces, { type: "application/octet-stream" });
  }
}

export class Files {
  #next = 1;
  /** Files to send, one after the other. The first is under way. */
  #outgoing: Outgoing[] = [];
  #incoming: Incoming | undefined;
  /** Grows with each new start of the pump, so that an older one ends. */
  #run = 0;
  #isOffered = false;

  constructor(
    readonly talk: Talk,
    readonly show: (file: { name: string; size: number; isOwn: boolean; cancel: () => void }) => View,
  ) {}

  /** Sends a file, behind those that wait. */
  add(file: File): void {
    const number = this.#next++;
    const view = this.show({ name: file.name, size: file.size, isOwn: true, cancel: () => this.#cancel(number) });
    this.#outgoing.push(new Outgoing(number, file, view));
    this.#offer();
  }

  #offer(): void {
    const first = this.#outgoing[0];
    if (first === undefined || this.#isOffered) return;
    const { number, file } = first;
    this.#isOffered = this.talk.send({ kind: "offer", file: number, name: safeName(file.name), size: file.size, type: "" }) !== undefined;
  }

  /** The first file is over, and the next one begins. */
  #shift(): void {
    this.#outgoing.shift();
    this.#isOffered = false;
    this.#run++;
    this.#offer();
  }

  #cancel(number: number, reason = "cancelled here"): void {
    const at = this.#outgoing.findIndex((file) => file.number === number);
    const file = this.#outgoing[at];
    if (file === undefined) return;
    file.view.failed(reason);
    if (at > 0) this.#outgoing.splice(at, 1);
    else {
      this.talk.send({ kind: "cancel", file: number, own: true });
      this.#shift();
    }
  }

  #refuse(reason: string): void {
    if (this.#incoming === undefined) return;
    this.talk.send({ kind: "cancel", file: this.#incoming.number, own: false });
    this.#fail(reason);
  }

  #fail(reason: string): void {
    this.#incoming?.view.failed(reason);
    this.#incoming = undefined;
  }

  /** The peer is there. Another page knows nothing of the files. */
  met(isNew: boolean): void {
    this.#run++;
    if (isNew) {
      this.#fail("the other side began anew");
      this.#isOffered = false;
      const first = this.#outgoing[0];
      if (first !== undefined) {
        first.read = first.acknowledged = 0;
        first.isEnded = false;
        first.view.progress(0);
      }
      this.#offer();
    } else if (this.#incoming !== undefined) {
      this.talk.sendHave(this.#incoming.number, this.#incoming.received);
    }
  }

  /** The peer has so many bytes. In a new meeting this says where to go on. */
  have(number: number, bytes: number): void {
    const file = this.#outgoing[0];
    if (file?.number !== number || bytes > file.file.size || bytes > Math.max(file.read, file.hashed)) return;
    file.acknowledged = bytes;
    file.view.progress(bytes);
    if (bytes === file.file.size && file.hashed === bytes) {
      if (file.isEnded) return;
      file.isEnded = true;
      file.result ??= hex(file.hash.digest());
      this.talk.send({ kind: "end", file: number, hash: file.result });
    } else if (this.#pumped !== this.#run) {
      file.read = bytes;
      void this.#pump(file, ++this.#run);
    }
    this.#wake?.();
  }

  /** The run that a pump works for. */
  #pumped = 0;
  #wake: (() => void) | undefined;

  /** Reads and sends, as long as the window allows it. */
  async #pump(file: Outgoing, run: number): Promise<void> {
    this.#pumped = run;
    const { size } = file.file;
    while (run === this.#run && file.read < size) {
      if (file.read - file.acknowledged >= WINDOW) {
        await new Promise<void>((resolve) => (this.#wake = resolve));
        continue;
      }
      const offset = file.read;
      let bytes: Uint8Array<ArrayBuffer>;
      try {
        bytes = new Uint8Array(await file.file.slice(offset, offset + READ).arrayBuffer());
      } catch {
        bytes = new Uint8Array(0);
      }
      if (run !== this.#run) return;
      if (bytes.length === 0) {
        this.#cancel(file.number, "the file cannot be read");
        return;
      }
      if (offset + bytes.length > file.hashed) file.hash.update(bytes.subarray(file.hashed - offset));
      file.hashed = Math.max(file.hashed, offset + bytes.length);
      file.read = offset + bytes.length;
      for (let at = 0; at < bytes.length; at += PART) {
        this.talk.sendPart({ file: file.number, offset: offset + at, bytes: bytes.subarray(at, at + PART) });
      }
    }
  }

  part({ file: number, offset, bytes }: Part): void {
    const file = this.#incoming;
    // A part of a file that was cancelled, or one that has been received before.
    if (file?.number !== number || offset !== file.received) return;
    if (offset + bytes.length > file.size) return this.#refuse("the file is longer than announced");
    file.take(bytes);
    if (file.received - file.told >= STEP || file.received === file.size) {
      file.told = file.received;
      this.talk.sendHave(number, file.received);
      file.view.progress(file.received);
    }
  }

  note(note: Exclude<Note, { kind: "chat" }>): void {
    switch (note.kind) {
      case "offer": {
        this.#fail("the other side began another file");
        const name = safeName(note.name);
        const cancel = () => this.#incoming?.number === note.file && this.#refuse("cancelled here");
        const view = this.show({ name, size: note.size, isOwn: false, cancel });
        this.#incoming = new Incoming(note.file, name, note.size, view);
        this.talk.sendHave(note.file, 0);
        break;
      }
      case "end": {
        const file = this.#incoming;
        if (file?.number !== note.file || file.received !== file.size) break;
        const hash = hex(file.hash.digest());
        this.talk.send({ kind: "done", file: note.file, hash });
        this.#incoming = undefined;
        file.view.done(hash, note.hash);
        if (hash === note.hash) file.view.saved(file.blob(), file.name);
        break;
      }
      case "done": {
        const file = this.#outgoing[0];
        if (file?.number !== note.file || file.result === undefined) break;
        file.view.done(file.result, note.hash);
        this.#shift();
        break;
      }
      case "cancel":
        if (note.own) {
          if (this.#incoming?.number === note.file) this.#fail("cancelled by the other side");
        } else if (this.#outgoing[0]?.number === note.file) {
          this.#outgoing[0].view.failed("cancelled by the other side");
          this.#shift();
        }
    }
  }
}
