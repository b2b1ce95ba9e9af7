// Checks of tickets in a subprotocol, with the WebSocket that is built into Node and with Chromium. Takes the relay's address,
// HOST:PORT; $TICKET is a ticket, $EXPIRED one that has expired, and $SCRIPT the script of docs/access.md.

import { chromium } from 'playwright-core';
import { address, assert, check } from './checks.mjs';

const { TICKET, EXPIRED, SCRIPT, CHROMIUM } = process.env;

// With a token and a code, the script of the document makes a `socket`.
const script = SCRIPT.replace(/encode\("[^"]*"\)/, 'encode(token0)').replace('wss://relay.example.org', `ws://${address}`);
assert.notEqual(script, SCRIPT);
const source = `(token0, code) => { ${script} return socket; }`;

/// Connects, and returns the subprotocol, or that this has failed. (Node tells of a failure by no close event.)
const outcome = `(socket) => new Promise((resolve) => {
    socket.onopen = () => resolve('opened: ' + socket.protocol);
    socket.onerror = () => resolve('failed');
})`;

const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync'],
});
const page = await browser.newPage();
const places = {
    Node: (expression) => (0, eval)(expression),
    Chromium: (expression) => page.evaluate(expression),
};

for (const [place, run] of Object.entries(places)) {
    const connect = (ticket, code) =>
        run(`(${outcome})((${source})(${JSON.stringify(ticket)}, ${JSON.stringify(code)}))`);

    await check(`${place}: the script of the document joins with a ticket, and gets the other subprotocol`, async () => {
        assert.equal(await connect(TICKET, `${place}-1`), 'opened: arc-relay.v1');
    });

    await check(`${place}: a ticket that has expired is told by a close code`, async () => {
        const closed = `(socket) => new Promise((resolve) => {
            socket.onclose = ({ code, reason }) => resolve([code, reason]);
        })`;
        const result = await run(`(${closed})((${source})(${JSON.stringify(EXPIRED)}, '${place}-2'))`);
        assert.deepEqual(result, [4401, 'ticket expired']);
    });

    await check(`${place}: a ticket without another subprotocol fails in the client, as none was chosen`, async () => {
        const alone = source.replace('"arc-relay.v1", ', '');
        assert.notEqual(alone, source);
        const result = await run(`(${outcome})((${alone})(${JSON.stringify(TICKET)}, '${place}-3'))`);
        assert.equal(result, 'failed');
    });

    await check(`${place}: without a ticket, the connection fails`, async () => {
        const result = await run(`(${outcome})(new WebSocket('ws://${address}/?pair=${place}-4'))`);
        assert.equal(result, 'failed');
    });
}

await browser.close();
process.exit(); // the sockets of Node are still open
