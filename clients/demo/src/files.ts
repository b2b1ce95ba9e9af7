/** Files in both directions, piece by piece: neither side has a whole file in its memory. */

import { sha256 } from "@noble/hashes/sha2.js";
import type { Peer } from "../../js/src/resume.js";
import { hex, PART, safeName, type Note, type Part, type Talk } from "./talk.js";

/** So many bytes are read of a file at once. */
const READ = 1 << 20;

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
  /** The hash of all bytes, once they are sent. */
  hash: string | undefined;
  /** Whether nothing more of it is to be sent. */
  isOver = false;

  constructor(
    readonly number: number,
    readonly file: File,
    readonly view: View,
  ) {}
}

class Incoming {
  readonly hash = sha256.create();
  received = 0;
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
  /** Files that are not over, by their numbers. They are sent one after the other. */
  #outgoing = new Map<number, Outgoing>();
  #sending: Promise<void> = Promise.resolve();
  #incoming: Incoming | undefined;

  constructor(
    readonly talk: Talk,
    readonly show: (file: { name: string; size: number; isOwn: boolean; cancel: () => void }) => View,
  ) {}

  /** Sends a file, behind those that wait. */
  add(file: File): void {
    const number = this.#next++;
    const view = this.show({ name: file.name, size: file.size, isOwn: true, cancel: () => this.#end(number, "cancelled here") });
    const outgoing = new Outgoing(number, file, view);
    this.#outgoing.set(number, outgoing);
    if (this.talk.peer !== undefined) this.#enqueue(outgoing, this.talk.peer);
  }

  /** A page is there that knows nothing of the files. */
  met(peer: Peer): void {
    this.#fail("the other side began anew");
    for (const file of this.#outgoing.values()) this.#enqueue(file, peer);
  }

  #enqueue(file: Outgoing, peer: Peer): void {
    // If the peer is gone, the file is sent to the next one.
    this.#sending = this.#sending.then(() => this.#transfer(file, peer)).catch(() => {});
  }

  async #transfer(file: Outgoing, peer: Peer): Promise<void> {
    if (file.isOver) return;
    const { number, view } = file;
    const { name, size } = file.file;
    const hash = sha256.create();
    view.progress(0);
    await this.talk.note(peer, { kind: "offer", file: number, name: safeName(name), size });
    for (let offset = 0; offset < size && !file.isOver; offset += READ) {
      const length = Math.min(READ, size - offset);
      const bytes = new Uint8Array(await file.file.slice(offset, offset + length).arrayBuffer().catch(() => new ArrayBuffer(0)));
      if (bytes.length < length) this.#end(number, "the file cannot be read");
      hash.update(bytes);
      for (let at = 0; at < bytes.length && !file.isOver; at += PART) {
        const part = bytes.subarray(at, at + PART);
        const sent = offset + at + part.length;
        await this.talk.part(peer, { file: number, bytes: part }, () => file.isOver || view.progress(sent));
      }
    }
    if (file.isOver) return this.talk.note(peer, { kind: "cancel", file: number, own: true });
    file.hash = hex(hash.digest());
    await this.talk.note(peer, { kind: "end", file: number, hash: file.hash });
  }

  /** Ends a file of this side. The peer is told by the transfer, behind what was sent. */
  #end(number: number, reason: string): void {
    const file = this.#outgoing.get(number);
    if (file === undefined) return;
    file.isOver = true;
    this.#outgoing.delete(number);
    file.view.failed(reason);
  }

  #refuse(reason: string): void {
    const file = this.#incoming;
    if (file === undefined) return;
    if (this.talk.peer !== undefined) this.#tell(this.talk.peer, { kind: "cancel", file: file.number, own: false });
    this.#fail(reason);
  }

  #fail(reason: string): void {
    this.#incoming?.view.failed(reason);
    this.#incoming = undefined;
  }

  #tell(peer: Peer, note: Note): void {
    this.talk.note(peer, note).catch(() => {}); // the next peer knows nothing of the file
  }

  part({ file: number, bytes }: Part): void {
    const file = this.#incoming;
    // Parts of a file that was cancelled here may be under way.
    if (file?.number !== number) return;
    if (file.received + bytes.length > file.size) return this.#refuse("the file is longer than announced");
    file.take(bytes);
    file.view.progress(file.received);
  }

  note(note: Exclude<Note, { kind: "chat" }>): void {
    switch (note.kind) {
      case "offer": {
        this.#fail("the other side began another file");
        const name = safeName(note.name);
        const cancel = () => this.#incoming?.number === note.file && this.#refuse("cancelled here");
        const view = this.show({ name, size: note.size, isOwn: false, cancel });
        this.#incoming = new Incoming(note.file, name, note.size, view);
        break;
      }
      case "end": {
        const file = this.#incoming;
        if (file?.number !== note.file || this.talk.peer === undefined) break;
        if (file.received !== file.size) return this.#refuse("the file is shorter than announced");
        const hash = hex(file.hash.digest());
        this.#tell(this.talk.peer, { kind: "done", file: note.file, hash });
        this.#incoming = undefined;
        file.view.done(hash, note.hash);
        if (hash === note.hash) file.view.saved(file.blob(), file.name);
        break;
      }
      case "done": {
        const file = this.#outgoing.get(note.file);
        if (file?.hash === undefined) break;
        file.isOver = true;
        this.#outgoing.delete(note.file);
        file.view.done(file.hash, note.hash);
        break;
      }
      case "cancel":
        if (!note.own) this.#end(note.file, "cancelled by the other side");
        else if (this.#incoming?.number === note.file) this.#fail("cancelled by the other side");
    }
  }
}
