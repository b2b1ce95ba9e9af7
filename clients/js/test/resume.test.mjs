// Resuming by a real relay, over a line that is cut at any moment, in the clear and encrypted.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import test from "node:test";
import { endToEnd, newSecret } from "../dist/e2e.js";
import { PeerReplacedError, resume } from "../dist/resume.js";
import { client, line, newCode, relay, text, within } from "./support.mjs";

const kinds = { "in the clear": () => ({ code: newCode() }), encrypted: () => endToEnd(newSecret()) };

/** Connects and resumes, with the next peer in `next`. */
function resuming(t, options, bounds) {
  const side = client(t, options);
  const peers = resume(side.connection, bounds);
  const iteration = peers[Symbol.asyncIterator]();
  return { ...side, peers, next: async () => (await within("a peer", iteration.next())).value };
}

const both = (t, common, bounds) => {
  const sides = [resuming(t, common, bounds), resuming(t, common, bounds)];
  return Promise.all(sides.map(async (side) => ({ ...side, peer: await side.next() })));
};

for (const [kind, options] of Object.entries(kinds)) {
  test(`${kind}, a stream both ways over a line that is cut is whole and in order`, async (t) => {
    const { port } = await relay(t);
    const wire = await line(t, port);
    const sides = await both(t, { url: wire.url, ...options() }, { buffer: 300_000, window: 200_000 });
    const COUNT = 600;
    const chunk = (nth) => new Uint8Array(nth % 7 === 0 ? nth : 20_000 + nth).fill(nth % 251);
    const expected = createHash("sha256");
    for (let nth = 0; nth < COUNT; nth++) expected.update(chunk(nth));
    const digest = expected.digest("hex");
    let taken = 0;
    let cuts = 0;
    const send = async ({ peer }) => {
      for (let nth = 0; nth < COUNT; nth++) await peer.send(chunk(nth));
      await peer.flush();
      assert.equal(peer.acknowledged, COUNT);
      assert.deepEqual(peer.unacknowledged, []);
    };
    const receive = async ({ peer }) => {
      const hash = createHash("sha256");
      let nth = 0;
      for await (const message of peer) {
        assert.equal(message.length, chunk(nth).length, `message ${nth}`);
        hash.update(message);
        // Cuts come at messages, so that there are as many on a fast machine as on a slow one.
        if (++taken % 280 === 0) cuts++, wire.cut();
        if (++nth === COUNT) break;
      }
      assert.equal(hash.digest("hex"), digest);
    };
    await within("the streams", Promise.all(sides.flatMap((side) => [send(side), receive(side)])), 90_000);
    assert.equal(cuts, 4);
    assert.ok(sides.every(({ events }) => events.filter(([name]) => name === "unpaired").length >= 2));
  });

  test(`${kind}, a program that starts anew is a new peer, and the rest of the old one's messages is told`, async (t) => {
    const { url } = await relay(t);
    const common = { url, ...options() };
    const [daemon, phone] = await both(t, common, { buffer: 1000 });
    await phone.peer.send("taken");
    for await (const message of daemon.peer) {
      assert.equal(text(message), "taken");
      break;
    }
    await within("the acknowledgement", phone.peer.flush());
    // The daemon has this one, but its program does not take it.
    await phone.peer.send("not taken");
    await daemon.connection.close();
    await phone.peer.send(new Uint8Array(800));
    const stuck = assert.rejects(phone.peer.send(new Uint8Array(800)), PeerReplacedError);
    const again = resuming(t, common);
    const [fresh, old] = [await phone.next(), await again.next()];
    await within("the rejection", stuck);
    assert.deepEqual([phone.peer.accepted, phone.peer.acknowledged], [3, 1]);
    const rest = phone.peer.unacknowledged;
    assert.deepEqual(rest.map(({ message }) => message.length), [9, 800]);
    assert.ok(rest[0].wasSent);
    for await (const _ of phone.peer) assert.fail("the old peer sent nothing");
    await fresh.send("to the new one");
    for await (const message of old) {
      assert.equal(text(message), "to the new one");
      break;
    }
  });
}

test("acknowledgements come by many messages, and after the program has taken them", async (t) => {
  const { url } = await relay(t);
  const code = newCode();
  const [one, other] = await both(t, { url, code });
  const counts = [];
  one.peer.on("acknowledged", (count) => counts.push(count));
  for (let nth = 0; nth < 500; nth++) await one.peer.send(new Uint8Array(10));
  const messages = other.peer[Symbol.asyncIterator]();
  await within("a message", messages.next());
  assert.equal(one.peer.acknowledged, 0);
  for (let nth = 1; nth < 500; nth++) await within("a message", messages.next());
  await messages.return();
  await within("the acknowledgements", one.peer.flush());
  assert.equal(counts.at(-1), 500);
  assert.ok(counts.length < 50, `${counts.length} acknowledgements`);
});

test("a sender waits for a peer that takes nothing", async (t) => {
  const { url } = await relay(t);
  const [one, other] = await both(t, { url, code: newCode() }, { buffer: 100_000, window: 50_000 });
  let sent = 0;
  const stream = (async () => {
    for (; sent < 20; sent++) await one.peer.send(new Uint8Array(20_000));
  })();
  for (let nth = 0; nth < 20; nth++) {
    for await (const _ of other.peer) {
      assert.ok(sent <= nth + 5, `${sent} were accepted, and ${nth} taken`);
      break;
    }
  }
  await within("the end", stream);
});

test("what was taken before a close is acknowledged", async (t) => {
  const { url } = await relay(t);
  const [one, other] = await both(t, { url, code: newCode() });
  await one.peer.send("the last");
  for await (const _ of other.peer) break;
  await other.peers.close();
  await within("the acknowledgement", one.peer.flush());
  await assert.rejects(other.peer.send("late"), { code: 1000 });
  for await (const _ of other.peers) assert.fail("no peer comes to a closed connection");
});

test("a peer that does not resume is left, and one that does is found", async (t) => {
  const { url } = await relay(t);
  const code = newCode();
  const one = resuming(t, { url, code });
  const stranger = client(t, { url, code });
  await stranger.connection.send("hello");
  await one.when("reconnecting", ({ code, reason }) => code === 4002 && reason.includes("does not resume"));
  await stranger.connection.close();
  const other = resuming(t, { url, code });
  const peer = await one.next();
  await peer.send("found");
  for await (const message of await other.next()) {
    assert.equal(text(message), "found");
    break;
  }
});
