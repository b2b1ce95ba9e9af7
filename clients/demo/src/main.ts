/** The page: joins by the relay that it came from, and shows what happens. */

import { encodeQR } from "qr";
import { ClosedError, connect, type Connection } from "../../js/src/index.js";
import { endToEnd, linkWith, newSecret, secretIn } from "../../js/src/e2e.js";
import { Files, type View } from "./files.js";
import { Talk } from "./talk.js";
import { received, sent, TappedWebSocket, type Seen } from "./tap.js";

const element = <T extends HTMLElement = HTMLElement>(id: string): T => document.getElementById(id) as T;
const make = <K extends keyof HTMLElementTagNameMap>(name: K, className: string, text = ""): HTMLElementTagNameMap[K] =>
  Object.assign(document.createElement(name), { className, textContent: text });

/** The log keeps so many entries. */
const MOST_ENTRIES = 500;

let connection: Connection | undefined;
let token: string | undefined;
let wasPaired = false;
let countdown: ReturnType<typeof setInterval> | undefined;

// The secret is in the fragment only: browsers send it to no server.
let secret: Uint8Array;
let hasGoodLink = true;
try {
  secret = location.hash === "" ? newSecret() : secretIn(location.href);
} catch {
  secret = newSecret();
  hasGoodLink = false;
}

/** This page without its query and fragment. */
const here = (): URL => new URL("./", location.href);

// State.

type Tone = "wait" | "good" | "bad";

function tell(text: string, tone: Tone, detail = ""): void {
  clearInterval(countdown);
  // A screen reader speaks each change, so there is none without a reason.
  if (element("state").textContent !== text) element("state").textContent = text;
  element("status").dataset.tone = tone;
  element("detail").textContent = detail;
}

const NETWORK = "The line was interrupted";

/** The reason of an attempt that the browser causes. */
const ONLINE = "online";

/** What a close code means to the people at the page. */
function meaning(code: number, reason: string): string {
  switch (code) {
    case 4400:
      return "The relay refuses this request";
    case 4401:
      return "This relay asks for an access token";
    case 4403:
      return "This relay does not let pages of this address join";
    case 4409:
      return "Two others are already connected with this link";
    case 4429:
      return "Too many attempts from your address";
    case 4503:
      return reason === "relay stopping" ? "The relay is stopping" : "The relay is full";
    case 4001:
      return "Another connection took this page's place";
    case 4002:
      return reason === ONLINE ? NETWORK : "The other side has another secret, or something changed a message on the way";
    case 1001:
      return reason === "pair expired" ? "The other side did not come in time" : "The relay is stopping";
    case 1012:
      return "The relay restarts";
    case 1000:
      return "The other side has left";
    case 1011:
      return "The other side is lost";
    default:
      return NETWORK;
  }
}

function showReconnecting({ code, reason, pause }: { code: number; reason: string; pause: number }): void {
  const at = Date.now() + pause;
  const why = meaning(code, reason);
  // The other side's end, or the end of a wait, is no failure of the line.
  const calm = code === 1000 || code === 1001;
  tell(code === 4409 ? `${why}. Trying again` : calm ? `${why}. Waiting again` : `${why}. Connecting again`, code === 4409 ? "bad" : "wait");
  const count = () => {
    const left = Math.ceil((at - Date.now()) / 1000);
    element("detail").textContent = left > 0 ? `next attempt in ${left} s` : "connecting";
  };
  count();
  countdown = setInterval(count, 250);
  element("closed").hidden = code !== 4409;
  if (code === 4409) explain(FULL, "This link joins two devices, and both are there. This page goes on trying for a minute, in case one of them leaves.");
}

const FULL = "Two devices are connected already";

/** Says in a card of its own why there is no connection. By itself it offers another link only. */
function explain(title: string, reason: string): void {
  element("closed").hidden = false;
  element("closed-title").textContent = title;
  element("closed-reason").textContent = reason;
  element("token-form").hidden = true;
  element("again").hidden = true;
  element("invite").hidden = true;
}

function showClosed({ code, message }: ClosedError): void {
  const asks = code === 4401;
  element("send").toggleAttribute("disabled", true);
  tell(meaning(code, message), "bad");
  explain(
    code === 4409 ? FULL : "Not connected",
    asks && token !== undefined ? `The relay did not accept this token: ${message}.`
    : asks ? "The operator of this relay gives out tokens. This page keeps yours until it is closed."
    : code === 4409 ? "This link joins two devices, and both are there. Close the page on one of them, and try again."
    : `The relay said: ${message || "nothing"} (${code}).`,
  );
  element("token-form").hidden = !asks;
  element("again").hidden = asks;
  if (asks) element("token").focus();
}

// The relay's view.

const count = new Intl.NumberFormat("en");

export function sizeText(bytes: number): string {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${unit === 0 || bytes >= 100 ? Math.round(bytes) : bytes.toFixed(1)} ${units[unit]}`;
}

function showSeen(direction: "sent" | "received", seen: Seen): void {
  element(`${direction}-count`).textContent = `${count.format(seen.messages)} messages, ${sizeText(seen.bytes)}`;
  const rest = seen.length > seen.latest.length ? " …" : "";
  element(`${direction}-bytes`).textContent =
    seen.length === 0 ? "nothing yet" : Array.from(seen.latest, (byte) => byte.toString(16).padStart(2, "0")).join(" ") + rest;
}

let isDrawn = true;

/** Draws the numbers once in a while: a fast file changes them thousands of times in a second. */
function drawSoon(): void {
  if (!isDrawn) return;
  isDrawn = false;
  setTimeout(() => {
    isDrawn = true;
    showSeen("sent", sent);
    showSeen("received", received);
  }, 100);
}

function showPlain(direction: "sent" | "received", text: string): void {
  element(`${direction}-plain`).textContent = text;
  drawSoon();
}

// The log.

function append(entry: HTMLElement): void {
  const log = element("log");
  const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(entry);
  element("empty").hidden = true;
  while (log.children.length > MOST_ENTRIES) log.firstElementChild?.remove();
  if (isAtEnd) log.scrollTop = log.scrollHeight;
}

function line(text: string, isOwn: boolean): HTMLElement {
  const entry = make("div", isOwn ? "line own" : "line");
  entry.append(make("span", "sr", isOwn ? "You: " : "The other side: "), make("p", "text", text));
  const mark = make("span", "mark");
  entry.append(mark);
  append(entry);
  return mark;
}

function note(text: string): void {
  append(make("div", "note", text));
}

/** The card of a file. */
function card({ name, size, isOwn, cancel }: { name: string; size: number; isOwn: boolean; cancel: () => void }): View {
  const entry = make("div", isOwn ? "line file own" : "line file");
  const title = make("p", "text");
  title.append(make("span", "sr", isOwn ? "You send " : "The other side sends "), make("strong", "name", name));
  const progress = make("progress", "");
  progress.max = Math.max(size, 1);
  progress.setAttribute("aria-label", `${isOwn ? "Delivered" : "Received"}: ${name}`);
  const state = make("span", "mark", `${isOwn ? "waits, " : ""}${sizeText(size)}`);
  const hash = make("p", "hash");
  const row = make("div", "row");
  const stop = make("button", "quiet-button", "Cancel");
  stop.type = "button";
  stop.setAttribute("aria-label", `Cancel ${name}`);
  stop.addEventListener("click", cancel);
  row.append(state, stop);
  entry.append(title, progress, row);
  append(entry);
  return {
    progress(bytes) {
      progress.value = size === 0 ? 1 : bytes;
      state.textContent = `${isOwn ? "delivered" : "received"} ${sizeText(bytes)} of ${sizeText(size)}`;
      showPlain(isOwn ? "sent" : "received", `a part of ${name}`);
    },
    done(own, peer) {
      stop.remove();
      progress.value = progress.max;
      const isSame = own === peer;
      state.textContent = isSame ? `${isOwn ? "delivered" : "received"}, ${sizeText(size)}` : "damaged: the hashes differ";
      entry.dataset.result = isSame ? "good" : "bad";
      hash.textContent = isSame ? `SHA-256 on both sides: ${own}` : `SHA-256 here ${own}, there ${peer}`;
      entry.append(hash);
    },
    saved(blob, name) {
      const link = make("a", "button", "Save");
      link.href = URL.createObjectURL(blob);
      link.download = name;
      link.setAttribute("aria-label", `Save ${name}`);
      row.append(link);
    },
    failed(reason) {
      stop.remove();
      progress.remove();
      state.textContent = reason;
      entry.dataset.result = "bad";
    },
  };
}

// What the two say.

const talk: Talk = new Talk({
  met() {
    if (wasPaired) note("The other side opened the page anew. It has none of the earlier messages.");
    wasPaired = true;
    if (talk.peer !== undefined) files.met(talk.peer);
  },
  line(text) {
    line(text, false);
    showPlain("received", text);
  },
  note: (told) => files.note(told),
  part: (part) => files.part(part),
});
const files: Files = new Files(talk, card);

function say(text: string): boolean {
  let mark: HTMLElement | undefined;
  if (!talk.say(text, () => mark && (mark.textContent = "delivered"))) return false;
  mark = line(text, true);
  mark.textContent = connection?.state === "paired" ? "sent" : "waits for the other side";
  element("log").scrollTop = element("log").scrollHeight;
  showPlain("sent", text);
  return true;
}

// The connection.

function begin(): void {
  void connection?.close();
  element("closed").hidden = true;
  element("send").toggleAttribute("disabled", false);
  tell("Connecting", "wait");
  const current = connect({
    url: here(),
    ...endToEnd(secret),
    // Resuming bounds what is buffered. A timer in a hidden page would be slow.
    highWater: 16 << 20,
    ...(token !== undefined && { token }),
    WebSocket: TappedWebSocket,
  });
  connection = current;
  void talk.begin(current);
  const on: Connection["on"] = (kind, listener) => current.on(kind, (detail) => current === connection && listener(detail));
  on("state", (state) => {
    if (state === "waiting" || state === "paired") element("closed").hidden = true;
    if (state !== "waiting") return;
    tell("Waiting for the other side", "wait", "this page goes on by itself");
    element("invite").hidden = false;
  });
  on("paired", () => {
    tell("Connected", "good", "encrypted from end to end");
    element("invite").hidden = true;
    element("chat").classList.add("met");
    if (document.activeElement === document.body || document.activeElement === null) element("message").focus({ preventScroll: true });
  });
  on("message", drawSoon);
  on("draining", (within) => note(`The relay is about to stop, within ${within} s.`));
  on("reconnecting", showReconnecting);
  on("closed", showClosed);
}

// The link.

const LOOPBACK = /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/;

/** The link with the host that is wished, or none if that is no host. */
function link(): string | undefined {
  const page = here();
  const host = element<HTMLInputElement>("host").value.trim();
  if (host !== "" && host !== page.host) {
    if (!/^[\w.-]+(:\d{1,5})?$|^\[[\da-f:.]+\](:\d{1,5})?$/i.test(host)) return undefined;
    page.host = host;
  }
  return linkWith(secret, page);
}

/** A square for each dark module, in one path. White is around it, in the dark too: cameras expect it. */
function drawCode(text: string): void {
  const modules = encodeQR(text, "raw", { border: 2 });
  const svg = element("code");
  svg.setAttribute("viewBox", `0 0 ${modules.length} ${modules.length}`);
  const squares = modules.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [`M${x} ${y}h1v1h-1z`] : [])));
  svg.querySelector("path")?.setAttribute("d", squares.join(""));
}

function showLink(): void {
  const url = link();
  element("host-error").hidden = url !== undefined;
  element("host").setAttribute("aria-invalid", String(url === undefined));
  if (url === undefined) return;
  element<HTMLInputElement>("link").value = url;
  element<HTMLAnchorElement>("second").href = linkWith(secret, here());
  element("loopback").hidden = !LOOPBACK.test(new URL(url).hostname);
  drawCode(url);
}

async function copyLink(): Promise<void> {
  const input = element<HTMLInputElement>("link");
  let isCopied = false;
  try {
    // Only a secure context has a clipboard, and a page of a local network is none.
    await navigator.clipboard.writeText(input.value);
    isCopied = true;
  } catch {
    input.focus();
    input.select();
    isCopied = document.execCommand("copy");
  }
  element("copied").textContent = isCopied ? "Copied" : "Press Ctrl+C to copy";
}

/** Takes a new secret: the old link leads to this page no more. */
function beginAnew(): void {
  history.replaceState(null, "", here());
  location.reload();
}

// Events.

element("copy").addEventListener("click", () => void copyLink());
element("host").addEventListener("input", showLink);
element("link").addEventListener("focus", () => element<HTMLInputElement>("link").select());
element("again").addEventListener("click", begin);
for (const id of ["anew", "anew-link"]) element(id).addEventListener("click", beginAnew);
element("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element<HTMLInputElement>("token").value;
  if (token !== "") begin();
});
element("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = element<HTMLInputElement>("message");
  const text = input.value.trim();
  if (text !== "" && say(text)) input.value = "";
  input.focus();
});
element("attach").addEventListener("click", () => element("file").click());
element("file").addEventListener("change", () => {
  const input = element<HTMLInputElement>("file");
  for (const file of input.files ?? []) files.add(file);
  input.value = "";
});
const chat = element("chat");
chat.addEventListener("dragover", (event) => {
  event.preventDefault();
  chat.classList.add("dropping");
});
chat.addEventListener("dragleave", () => chat.classList.remove("dropping"));
chat.addEventListener("drop", (event) => {
  event.preventDefault();
  chat.classList.remove("dropping");
  for (const file of event.dataTransfer?.files ?? []) files.add(file);
});

if (hasGoodLink) {
  const own = new URL(linkWith(secret, here()));
  history.replaceState(null, "", own);
  element<HTMLInputElement>("host").value = own.host;
  showLink();
  begin();
} else {
  tell("This link is not complete", "bad");
  explain("Not connected", "Its end holds the secret, and a part of it is missing. Ask for the link again.");
}
window.addEventListener("online", () => connection?.reconnect(ONLINE));
window.addEventListener("hashchange", () => location.reload());
