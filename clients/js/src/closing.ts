/**
 * What a close code of the relay asks of a client, and how long it waits before it comes again.
 *
 * docs/protocol.md has the reasons, and docs/protocol/vectors.json the same table for every client.
 */

/** What a client does after a close code. */
export type Action =
  /** Come again: at once, then after growing pauses. */
  | "retry"
  /** Come again later: after the seconds that the relay names, or some. */
  | "later"
  /** Come again each second, for a minute: the client's own old connection may have to be found dead. */
  | "occupied"
  /** Do not come again without a change. */
  | "terminal";

const ACTIONS: Readonly<Record<number, Action>> = {
  1002: "terminal",
  1003: "terminal",
  1007: "terminal",
  1009: "terminal",
  1012: "later",
  4001: "terminal",
  4400: "terminal",
  4401: "terminal",
  4403: "terminal",
  4409: "occupied",
  4429: "later",
  4503: "later",
};

/** What a client does after this close code. A code that the relay does not use is one of a network that failed. */
export const actionOf = (code: number): Action => ACTIONS[code] ?? "retry";

/** The first pause is at most this long, in milliseconds. Each further one may be twice as long. */
const FIRST_PAUSE = 500;

/** No pause is longer, in milliseconds, unless the relay asks for it. */
const LONGEST_PAUSE = 30_000;

/** A relay can ask for so long a pause, in seconds. One that asks for more is broken, or not a relay. */
const LONGEST_AFTER = 3600;

/** The seconds in a control message, bounded. What is no number is none. */
export const secondsIn = (value: unknown): number =>
  typeof value === "number" ? Math.min(Math.max(value, 0), LONGEST_AFTER) : 0;

/** For this long a client comes again though both seats are taken, in milliseconds. */
const OCCUPIED_FOR = 60_000;

/** A WebSocket that was open for so many milliseconds was no failed attempt. */
const LASTING = 10_000;

/**
 * Nor was one that had its peer for so many. A line that is cut every few seconds is back at once, and a relay or a peer that
 * ends each meeting at its beginning is not asked more than once a second.
 */
const MEETING = 1000;

/**
 * The pause before the next attempt, in milliseconds, with full jitter: clients that lost one relay do not come at once.
 *
 * @param attempts how many attempts have failed since one succeeded
 * @param after the seconds that the relay named, if it did
 * @param random a number from 0 to 1
 */
export function pauseBefore(action: Action, attempts: number, after: number | undefined, random: number): number {
  switch (action) {
    case "occupied":
      return 500 + 1000 * random;
    case "later": {
      const seconds = secondsIn(after ?? 1);
      return 1000 * seconds + random * Math.max(1000, 250 * seconds);
    }
    default:
      return random * Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** Math.min(attempts, 16));
  }
}

/**
 * A WebSocket that was given up may still reach the relay, for so many milliseconds, and take the place of the next one with
 * their `side`.
 */
const LATE = 60_000;

/** Counts failed attempts. Times are milliseconds of one clock. */
export class Attempts {
  #failed = 0;
  #openAt = Infinity;
  #metAt = Infinity;
  #occupiedSince: number | undefined;
  #hurriedAt = -Infinity;
  #gaveUpAt = -Infinity;

  /** A WebSocket is open. */
  open(now: number): void {
    this.#openAt = now;
  }

  /** The peer is there. */
  meet(now: number): void {
    this.#metAt = now;
  }

  /** A WebSocket has ended, or did not open. Returns the pause before the next one, or nothing if there is to be none. */
  lose(code: number, after: number | undefined, now: number, random: number): number | undefined {
    if (now - this.#openAt >= LASTING || now - this.#metAt >= MEETING) this.#failed = 0;
    this.#openAt = this.#metAt = Infinity;
    let action = actionOf(code);
    if (code === 1006 || code === 4002) this.#gaveUpAt = now;
    if (code === 4001 && now - this.#gaveUpAt <= LATE) {
      action = "retry";
      this.#gaveUpAt = -Infinity;
    }
    if (action === "terminal") return undefined;
    if (action === "occupied") {
      this.#occupiedSince ??= now;
      if (now - this.#occupiedSince > OCCUPIED_FOR) return undefined;
    } else if (code < 4400) {
      // It was no refusal: the client had a seat, or its line failed.
      this.#occupiedSince = undefined;
    }
    return pauseBefore(action, this.#failed++, after, random);
  }

  /**
   * The program knows that an attempt is of use now. The next pauses are short, as the first attempt on a new network may fail, too.
   *
   * Returns whether to try now. A program that asks again within 10 s changes nothing: until then the pauses are short anyway.
   */
  hurry(now: number): boolean {
    if (now - this.#hurriedAt < LASTING) return false;
    this.#hurriedAt = this.#gaveUpAt = now;
    this.#failed = 0;
    return true;
  }
}
