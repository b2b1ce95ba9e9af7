// Connections by a real relay, and by a line that cuts, stalls and refuses.

import assert from "node:assert/strict";
import test from "node:test";
import { deviceSecret, endToEnd, linkWith, newSecret, secretIn } from "../dist/e2e.js";
import { client, line, newCode, relay, text, within } from "./support.mjs";

/** The options of both sides: in the clear, and encrypted. */
const kinds = { "in the clear": () => ({ code: newCode() }), encrypted: () => endToEnd(newSecret()) };

for (const [kind, options] of Object.entries(kinds)) {
  test(`${kind}, messages of all lengths arrive both ways in order`, async (t) => {
    const { url } = await relay(t);
    const common = { url, ...options() };
    const [daemon, phone] = [client(t, common), client(t, common)];
    const lengths = [0, 1, 125, 65_518, 65_519, 65_536, 8 << 20, 3];
    const content = (nth, length) => new Uint8Array(length).fill(nth + 1);
    const send = async ({ connection }) => {
      await Promise.all(lengths.map((length, nth) => connection.send(content(nth, length))));
    };
    const receive = async ({ connection }) => {
      let nth = 0;
      for await (const message of connection) {
        assert.deepEqual([nth, message.length], [nth, lengths[nth]]);
        assert.equal(Buffer.compare(message, content(nth, lengths[nth])), 0);
        if (++nth === lengths.length) return;
      }
    };
    await within("the messages", Promise.all([daemon, phone].flatMap((side) => [send(side), receive(side)])));
  });

  test(`${kind}, both sides come again after each cut, and send on`, async (t) => {
    const { port } = await relay(t);
    const wire = await line(t, port);
    const common = { url: wire.url, ...options() };
    const [one, other] = [client(t, common), client(t, common)];
    for (let round = 0; round < 4; round++) {
      const from = other.events.length;
      await within("a send", one.connection.send(`round ${round}`));
      await other.when("message", (message) => text(message) === `round ${round}`, from);
      assert.equal(one.connection.state, "paired");
      const paired = [one, other].map((side) => side.when("paired", undefined, side.events.length));
      wire.cut();
      await Promise.all(paired);
    }
    assert.ok(one.events.some(([name, detail]) => name === "unpaired" && !detail.orderly));
  });
}

test("a line that is cut again and again is back at once, if the two had met", async (t) => {
  const { port } = await relay(t);
  const wire = await line(t, port);
  const common = { url: wire.url, code: newCode() };
  const sides = [client(t, common), client(t, common)];
  for (let round = 0; round < 6; round++) {
    await Promise.all(sides.map((side) => side.when("paired", undefined, side.from)));
    await new Promise((resolve) => setTimeout(resolve, 1100)); // that is how long such a line lives
    for (const side of sides) side.from = side.events.length;
    wire.cut();
    for (const side of sides) {
      const { pause } = await side.when("reconnecting", undefined, side.from);
      assert.ok(pause <= 500, `round ${round}: ${pause}`);
    }
  }
});

test("a side that stalls is given up, and its own successor is not its peer", async (t) => {
  const { port, url } = await relay(t);
  const wire = await line(t, port);
  const code = newCode();
  const phone = client(t, { url: wire.url, code, heartbeat: 200, patience: 2000 });
  await phone.when("state", (state) => state === "waiting");
  wire.stall();
  // The relay still has the old connection. Without a side, the phone would be paired with itself.
  await phone.when("reconnecting");
  await phone.when("state", (state) => state === "waiting", phone.events.length);
  assert.equal(phone.events.filter(([name]) => name === "paired").length, 0);
  const daemon = client(t, { url, code });
  await daemon.connection.send("found");
  assert.equal(text(await phone.when("message")), "found");
});

test("a client comes when the relay does", async (t) => {
  const first = await relay(t);
  const code = newCode();
  const one = client(t, { url: first.url, code });
  await one.when("state", (state) => state === "waiting");
  await first.stop("SIGKILL");
  await one.when("reconnecting", ({ code }) => code === 1006);
  await relay(t, first.port);
  const other = client(t, { url: first.url, code });
  await Promise.all([one.when("paired"), other.when("paired")]);
});

test("a relay that stops says so, and its clients meet at the next", async (t) => {
  const first = await relay(t, 0, "--drain-timeout", "1s");
  const code = newCode();
  const sides = [0, 1].map(() => client(t, { url: first.url, code }));
  await Promise.all(sides.map((side) => side.when("paired")));
  const stopped = first.stop();
  assert.deepEqual(await Promise.all(sides.map((side) => side.when("draining"))), [1, 1]);
  await stopped;
  const from = sides.map((side) => side.events.length);
  await relay(t, first.port);
  await Promise.all(sides.map((side, nth) => side.when("paired", undefined, from[nth])));
});

test("refusals that no retry can change close the connection", async (t) => {
  const { url } = await relay(t, 0, "--min-code-length", "4");
  const refused = client(t, { url, code: "abc" });
  const error = await refused.when("closed");
  assert.deepEqual([error.name, error.code, error.message], ["ClosedError", 4400, "missing or invalid pair code"]);
  await assert.rejects(refused.connection.send("late"), { code: 4400 });
  await assert.rejects(async () => {
    for await (const _ of refused.connection);
  }, { code: 4400 });
  assert.equal(refused.events.filter(([name]) => name === "reconnecting").length, 0);
});

test("a third client comes again, and gets the seat of one that leaves", async (t) => {
  const { url } = await relay(t);
  const code = newCode();
  const [one, other] = [client(t, { url, code }), client(t, { url, code })];
  await Promise.all([one.when("paired"), other.when("paired")]);
  const third = client(t, { url, code });
  await third.when("reconnecting", ({ code, reason }) => code === 4409 && reason === "pair is full");
  await one.connection.close();
  await Promise.all([third.when("paired"), other.when("paired", undefined, other.events.length)]);
});

test("a full relay names the time to come again", async (t) => {
  const { url } = await relay(t, 0, "--max-waiting", "1");
  await client(t, { url, code: newCode() }).when("state", (state) => state === "waiting");
  const late = client(t, { url, code: newCode() });
  const { pause } = await late.when("reconnecting", ({ code }) => code === 4503);
  assert.ok(pause >= 5000 && pause <= 6500, String(pause));
});

test("an encrypted peer that takes leave is told from one that is cut off", async (t) => {
  const { port } = await relay(t);
  const wire = await line(t, port);
  const common = { url: wire.url, ...endToEnd(newSecret()) };
  const [one, other] = [client(t, common), client(t, common)];
  await Promise.all([one.when("paired"), other.when("paired")]);
  await one.connection.send("the last");
  await one.connection.close();
  assert.equal(text(await other.when("message")), "the last");
  assert.deepEqual(await other.when("unpaired"), { orderly: true });
});

test("sides with different secrets never pair", async (t) => {
  const { url } = await relay(t);
  const { code } = endToEnd(newSecret());
  const sides = [0, 1].map(() => client(t, { url, ...endToEnd(newSecret()), code }));
  await Promise.all(sides.map((side) => side.when("reconnecting")));
  assert.ok(sides.some(({ events }) => events.some(([name, detail]) => name === "reconnecting" && detail.code === 4002)));
  assert.ok(sides.every(({ events }) => events.every(([name]) => name !== "message")));
});

test("messages that are not taken close the connection instead of filling memory", async (t) => {
  const { url } = await relay(t);
  const code = newCode();
  const [one, other] = [client(t, { url, code, maxQueue: 1000 }), client(t, { url, code })];
  const iteration = one.connection[Symbol.asyncIterator]();
  const first = iteration.next();
  await other.connection.send(new Uint8Array(10));
  assert.equal((await first).value.length, 10);
  for (let nth = 0; nth < 20; nth++) await other.connection.send(new Uint8Array(100));
  assert.equal((await one.when("closed")).code, 1009);
});

test("a sender waits for a slow line", async (t) => {
  const { port, url } = await relay(t);
  const wire = await line(t, port);
  const code = newCode();
  const [one, other] = [client(t, { url, code }), client(t, { url: wire.url, code })];
  await Promise.all([one.when("paired"), other.when("paired")]);
  wire.stall();
  let sent = 0;
  const part = new Uint8Array(1 << 20);
  const stream = (async () => {
    while (sent < 64) {
      await one.connection.send(part);
      sent++;
    }
  })();
  stream.catch(() => {});
  const stuck = async () => {
    for (let before = -1; sent !== before; ) {
      before = sent;
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  };
  await within("the sender's wait", stuck());
  assert.ok(sent < 32, `${sent} MiB went into buffers`);
});

test("a link carries the secret, and each device has its own", () => {
  const secret = newSecret();
  const link = linkWith(secret, "https://app.example/pair?x=1");
  assert.deepEqual(secretIn(link), secret);
  assert.equal(new URL(link).search, "?x=1");
  assert.throws(() => secretIn("https://app.example/"), /no secret/);
  assert.throws(() => secretIn("https://app.example/#=="), /not base64url/);
  assert.notDeepEqual(deviceSecret(secret, "one"), deviceSecret(secret, "two"));
});
