// Checks of the relay with clients on Node's `ws`. Takes the relay's address, HOST:PORT.

import WebSocket from 'ws';
import { LEFT, LOST, MIB, address, assert, check, connect, pair, randomBytes, receives } from './checks.mjs';

await check('a binary message arrives unchanged', async (url) => {
    const [a, b] = await pair(url);
    const bytes = Buffer.from([...Array(256).keys()]);
    await a.send(bytes);
    await receives(b, bytes);
    await b.send(Buffer.of(0));
    await receives(a, Buffer.of(0));
});

await check('an empty message is forwarded', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.of());
    await a.send(Buffer.from('next'));
    await receives(b, '');
    await receives(b, 'next');
});

await check('a thousand messages keep their order in both directions', async (url) => {
    const [a, b] = await pair(url);
    const message = (number) => Buffer.alloc(4 + number, String(number).padStart(4, '0'));
    for (let number = 0; number < 1000; number += 1) {
        a.socket.send(message(number));
        b.socket.send(message(number));
    }
    for (let number = 0; number < 1000; number += 1) {
        assert.deepEqual(await a.next(), message(number));
        assert.deepEqual(await b.next(), message(number));
    }
});

await check('10 MiB in both directions at once', async (url) => {
    const [a, b] = await pair(url);
    const [fromA, fromB] = [randomBytes(10 * MIB), randomBytes(10 * MIB)];
    await Promise.all([a.send(fromA), b.send(fromB), receives(a, fromB), receives(b, fromA)]);
});

await check('a paused reader loses no message, and can send meanwhile', async (url) => {
    const [a, b] = await pair(url);
    const large = randomBytes(32 * MIB);
    a.socket.pause();
    b.socket.send(large);
    for (let number = 0; number < 100; number += 1) {
        await a.send(Buffer.of(number));
        await receives(b, Buffer.of(number));
    }
    a.socket.resume();
    await receives(a, large);
});

await check('text is dropped', async (url) => {
    const [a, b] = await pair(url);
    await a.send('dropped');
    await a.send('dropped, ', { fin: false });
    await a.send('too: \u2603', { fin: true });
    await a.send('');
    await a.send(Buffer.from('binary'));
    await receives(b, 'binary');
});

await check('text that is not UTF-8 is closed with 1007', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.of(0xff), { binary: false });
    assert.match(await a.closed, /^1007 /);
    assert.equal(await b.closed, LOST);
});

await check('a ping is answered by the relay and not forwarded', async (url) => {
    const a = await connect(url);
    await a.ping('alone');
    const b = await connect(url);
    const forwarded = [];
    b.socket.on('ping', () => forwarded.push('ping'));
    b.socket.on('pong', () => forwarded.push('pong'));
    await a.ping('x'.repeat(125));
    a.socket.pong('unsolicited');
    await a.send(Buffer.from('after them'));
    await receives(b, 'after them');
    assert.deepEqual(forwarded, []);
});

await check('a ping between fragments is answered', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.from('one '), { fin: false });
    await a.ping('within');
    await a.send(Buffer.from('two'), { fin: true });
    await receives(b, 'one two');
});

await check('fragments arrive as one message', async (url) => {
    const [a, b] = await pair(url);
    const parts = ['', 'a', 'b'.repeat(200), '', 'c'.repeat(70_000)].map((part) => Buffer.from(part));
    parts.push(randomBytes(3 * MIB));
    for (const part of parts) {
        await a.send(part, { fin: false });
    }
    await a.send(Buffer.of(), { fin: true });
    await a.send(Buffer.from('next'));
    await receives(b, Buffer.concat(parts));
    await receives(b, 'next');
});

await check('messages before pairing are held for the peer', async (url) => {
    const a = await connect(url);
    const large = randomBytes(10 * MIB);
    await a.send(Buffer.from('first'));
    await a.ping(); // the relay has the message
    a.socket.send(large); // ... and cannot take all of this one
    const b = await connect(url);
    await receives(b, 'first');
    await receives(b, large);
});

await check('a full pair is refused with 409', async (url) => {
    const [a, b] = await pair(url);
    assert.equal(await rejection(url), '409 pair is full\n');
    await a.send(Buffer.from('undisturbed'));
    await receives(b, 'undisturbed');
});

await check('a missing or invalid pair code is refused with 400', async () => {
    for (const query of ['', '?', '?pair=', '?pair', '?other=x', `?pair=${'x'.repeat(257)}`, '?pair=%FF']) {
        assert.equal(await rejection(`ws://${address}/${query}`), '400 missing or invalid pair code\n', query);
    }
});

await check('another version of the protocol is refused with 426', async (url) => {
    // A draft of the protocol, which this library still supports.
    assert.equal(await rejection(url, { protocolVersion: 8 }), '426 WebSocket version 13 required\n');
});

await check('a close reaches the peer after all messages', async (url) => {
    const [a, b] = await pair(url);
    for (let number = 0; number < 100; number += 1) {
        a.socket.send(Buffer.alloc(1000, number));
    }
    a.socket.close(4001, 'bye');
    assert.match(await a.closed, /^4001 /);
    for (let number = 0; number < 100; number += 1) {
        await receives(b, Buffer.alloc(1000, number));
    }
    assert.equal(await b.closed, LEFT);
});

await check('a close without a code is answered without one', async (url) => {
    const [a, b] = await pair(url);
    a.socket.close();
    assert.equal(await a.closed, '1005 ');
    assert.equal(await b.closed, LEFT);
});

await check('a pair code is free once one client has closed', async (url) => {
    const [a, b] = await pair(url);
    a.socket.close();
    await a.closed;
    const [c, d] = await pair(url);
    await d.send(Buffer.from('to c'));
    await receives(c, 'to c');
    assert.equal(await b.closed, LEFT);
});

await check('terminate() between messages closes the peer with 1000', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.from('before'));
    a.socket.terminate(); // without unread data, the kernel sends a FIN instead of a reset
    await receives(b, 'before');
    assert.equal(await b.closed, LEFT);
});

await check('terminate() within a message closes the peer with 1011', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.from('half'), { fin: false });
    a.socket.terminate();
    assert.equal(await b.closed, LOST);
});

await check('a reset closes the peer with 1011', async (url) => {
    const [a, b] = await pair(url);
    await a.send(Buffer.from('before'));
    await receives(b, 'before');
    a.socket._socket.resetAndDestroy(); // no public method sends a reset
    assert.equal(await b.closed, LOST);
});

await check('the first subprotocol is echoed', async (url) => {
    const a = await connect(url, ['first', 'second']);
    const b = await connect(url);
    assert.equal(a.socket.protocol, 'first');
    assert.equal(b.socket.protocol, '');
});

await check('compression is offered and not accepted', async (url) => {
    let offered;
    const a = await connect(url, [], {
        finishRequest(request) {
            offered = request.getHeader('Sec-WebSocket-Extensions');
            request.end();
        },
    });
    assert.match(offered, /permessage-deflate/);
    assert.equal(a.socket.extensions, '');
    const b = await connect(url);
    await a.send(Buffer.alloc(100_000, 'compressible'));
    await receives(b, Buffer.alloc(100_000, 'compressible'));
});

/// The status and body of the rejection.
function rejection(url, options = {}) {
    return new Promise((resolve, reject) => {
        const socket = new WebSocket(url, options);
        socket.on('open', () => reject(new Error('the relay has admitted the client')));
        socket.on('error', reject);
        socket.on('unexpected-response', async (_, response) => {
            const body = await response.setEncoding('utf8').toArray();
            resolve(`${response.statusCode} ${body.join('')}`);
        });
    });
}
