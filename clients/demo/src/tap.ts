/** Counts what really goes over a WebSocket, and keeps the beginning of the latest record: what the relay sees. */

/** One direction. */
export interface Seen {
  messages: number;
  bytes: number;
  /** The beginning of the latest record. */
  latest: Uint8Array;
  /** The length of the latest record, in bytes. */
  length: number;
}

/** As many bytes of a record are kept. */
const KEPT = 40;

export const sent: Seen = { messages: 0, bytes: 0, latest: new Uint8Array(0), length: 0 };
export const received: Seen = { messages: 0, bytes: 0, latest: new Uint8Array(0), length: 0 };

function count(seen: Seen, record: Uint8Array): void {
  seen.messages++;
  seen.bytes += record.length;
  seen.latest = record.slice(0, KEPT);
  seen.length = record.length;
}

/** A WebSocket whose binary messages are counted. Text is between a client and the relay, and is none of the peer's. */
export class TappedWebSocket extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols);
    this.addEventListener("message", ({ data }: MessageEvent<unknown>) => {
      if (data instanceof ArrayBuffer) count(received, new Uint8Array(data));
    });
  }

  override send(data: string | ArrayBufferLike | Blob | ArrayBufferView<ArrayBuffer>): void {
    if (data instanceof Uint8Array) count(sent, data);
    super.send(data as string | Uint8Array<ArrayBuffer>);
  }
}
