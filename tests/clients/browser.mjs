// Checks of the relay with pages in Chromium: pairs of two tabs, and pairs of a tab and a client on Node's `ws`. Takes
// the relay's address, HOST:PORT; $CHROMIUM is the browser.

import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { chromium } from 'playwright-core';
import { LEFT, MIB, address, assert, check, connect, randomBytes, receives, sha256 } from './checks.mjs';

// The close event in a page after its peer has left.
const PEER_LEFT = { code: 1000, reason: 'peer disconnected', wasClean: true };

const server = createServer(await serve()).listen(0, '127.0.0.1');
await once(server, 'listening');
const origin = `http://127.0.0.1:${server.address().port}`;
const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
        '--no-sandbox', // the sandbox does not work as root, and the page is trusted
        '--disable-gpu',
        '--disable-quic',
        '--no-first-run',
        '--disable-background-networking',
        '--disable-component-update',
        '--disable-sync',
    ],
});
const context = await browser.newContext();

await checkInTabs('a binary message arrives unchanged', async (a, b) => {
    const bytes = [...Array(256).keys()];
    await a.call('send', bytes);
    assert.deepEqual(await b.call('receive'), bytes);
    await b.call('send', []);
    assert.deepEqual(await a.call('receive'), []);
});

await checkInTabs('2000 messages keep their order in both directions', async (a, b) => {
    const numbers = [...Array(2000).keys()];
    const [atA, atB] = await Promise.all([
        a.call('receiveNumbered', 2000),
        b.call('receiveNumbered', 2000),
        a.call('sendNumbered', 2000),
        b.call('sendNumbered', 2000),
    ]);
    assert.deepEqual(atA, numbers);
    assert.deepEqual(atB, numbers);
});

await checkInTabs('10 MiB in both directions at once', async (a, b) => {
    const sent = await Promise.all([a.call('sendRandom', 10 * MIB), b.call('sendRandom', 10 * MIB)]);
    assert.equal(await a.call('receiveHash'), sent[1]);
    assert.equal(await b.call('receiveHash'), sent[0]);
});

await checkInTabs('text is dropped', async (a, b) => {
    await a.page.evaluate(() => socket.send('dropped'));
    await a.call('send', [1]);
    assert.deepEqual(await b.call('receive'), [1]);
});

await checkInTabs('a close reaches both clients', async (a, b) => {
    await a.call('send', [1]);
    await a.page.evaluate(() => socket.close(4001, 'x'));
    assert.deepEqual(await a.ending(), { code: 4001, reason: '', wasClean: true });
    assert.deepEqual(await b.call('receive'), [1]);
    assert.deepEqual(await b.ending(), PEER_LEFT);
});

await checkInTabs('a close without a code reaches both clients', async (a, b) => {
    await a.page.evaluate(() => socket.close());
    assert.deepEqual(await a.ending(), { code: 1005, reason: '', wasClean: true });
    assert.deepEqual(await b.ending(), PEER_LEFT);
});

await checkInTabs('closing a tab closes the peer with 1000', async (a, b) => {
    await a.page.close();
    assert.deepEqual(await b.ending(), PEER_LEFT);
});

await checkInTabs('reloading a tab closes the peer with 1000, and both can pair again', async (a, b, url) => {
    await a.page.reload();
    assert.deepEqual(await b.ending(), PEER_LEFT);
    await Promise.all([a.join(url), b.join(url)]);
    await a.call('send', [1]);
    assert.deepEqual(await b.call('receive'), [1]);
});

await checkInTabs('a third tab is refused, and does not see the status', async (a, b, url) => {
    const third = await openTab();
    assert.deepEqual(await third.join(url), { code: 1006, reason: '', wasClean: false });
    await third.page.close();
    await a.call('send', [1]);
    assert.deepEqual(await b.call('receive'), [1]);
});

await check('a URL without a pair code is refused', async () => {
    const tab = await openTab();
    assert.deepEqual(await tab.join(`ws://${address}/`), { code: 1006, reason: '', wasClean: false });
    await tab.page.close();
});

await check('the first subprotocol is echoed and no extension accepted', async (url) => {
    const tab = await openTab();
    assert.deepEqual(await tab.join(url, ['first', 'second']), { protocol: 'first', extensions: '' });
    await tab.page.close();
});

await check('tabs that speak arc-relay.v1 are told of each other, and get pongs', async (url) => {
    const [a, b] = [await openTab(), await openTab()];
    const chosen = { protocol: 'arc-relay.v1', extensions: '' };
    assert.deepEqual(await a.join(url, ['chat', 'arc-relay.v1']), chosen);
    assert.equal(await a.call('receive'), 'text: {"type":"waiting","expires_in":300}');
    assert.deepEqual(await b.join(url, ['arc-relay.v1']), chosen);
    for (const tab of [a, b]) {
        assert.equal(await tab.call('receive'), 'text: {"type":"paired"}');
    }
    await a.page.evaluate(() => socket.send(JSON.stringify({ type: 'ping', id: '7' })));
    assert.equal(await a.call('receive'), 'text: {"type":"pong","id":"7"}');
    await a.call('send', [1]);
    assert.deepEqual(await b.call('receive'), [1]);
    await a.page.evaluate(() => socket.send('hello'));
    assert.deepEqual(await a.ending(), { code: 1003, reason: 'unsupported text message', wasClean: true });
    assert.deepEqual(await b.ending(), { ...PEER_LEFT, code: 1011, reason: 'peer connection lost' });
    await Promise.all([a.page.close(), b.page.close()]);
});

await checkInTabs('a third tab that speaks arc-relay.v1 sees why it is refused', async (a, b, url) => {
    const third = await openTab();
    await third.join(url, ['arc-relay.v1']);
    assert.deepEqual(await third.ending(), { code: 4409, reason: 'pair is full', wasClean: true });
    await third.join(`ws://${address}/`, ['arc-relay.v1']);
    assert.deepEqual(await third.ending(), { code: 4400, reason: 'missing or invalid pair code', wasClean: true });
    await third.page.close();
});

await check('a tab and Node: messages of all sizes in both directions', async (url) => {
    const tab = await openTab();
    const node = await connect(url);
    const large = randomBytes(10 * MIB);
    node.socket.send(Buffer.of(1, 2, 3)); // before the tab connects
    node.socket.send(large);
    await tab.join(url);
    assert.deepEqual(await tab.call('receive'), [1, 2, 3]);
    assert.equal(await tab.call('receiveHash'), sha256(large));
    await tab.call('send', [4, 5, 6]);
    await receives(node, Buffer.of(4, 5, 6));
    const hash = await tab.call('sendRandom', 10 * MIB);
    assert.equal(sha256(await node.next()), hash);
    await tab.page.close();
    assert.equal(await node.closed, LEFT);
});

await check('a tab and Node: Node closes', async (url) => {
    const tab = await openTab();
    await tab.join(url);
    const node = await connect(url);
    await node.send(Buffer.from('one '), { fin: false });
    await node.send(Buffer.from('two'), { fin: true });
    node.socket.close(4001, 'bye');
    assert.deepEqual(await tab.call('receive'), [...Buffer.from('one two')]);
    assert.deepEqual(await tab.ending(), PEER_LEFT);
    await tab.page.close();
});

await browser.close();
server.close();

/// Runs a check with two tabs as a pair.
async function checkInTabs(name, body) {
    await check(name, async (url) => {
        const [a, b] = [await openTab(), await openTab()];
        assert.deepEqual(await a.join(url), { protocol: '', extensions: '' });
        assert.deepEqual(await b.join(url), { protocol: '', extensions: '' });
        await body(a, b, url);
        await Promise.all([a.page.close(), b.page.close()]);
    });
}

/// Opens a tab with the page, and returns functions to control it.
async function openTab() {
    const page = await context.newPage();
    await page.goto(origin);
    const call = (name, ...given) => page.evaluate(([name, given]) => window[name](...given), [name, given]);
    return {
        page,
        call,
        join: (url, protocols) => call('join', url, protocols),
        /// Waits for the close event.
        ending: () => page.evaluate(() => ending),
    };
}

/// Returns a handler that answers every request with the page.
async function serve() {
    const page = await readFile(new URL('page.html', import.meta.url));
    return (_, response) => response.setHeader('Content-Type', 'text/html; charset=utf-8').end(page);
}
