// Checks of the relay with a pair of a client on Node's `ws` and one on Python's `websockets`. Takes the relay's
// address, HOST:PORT; $PYTHON is the interpreter for the Python client, `echo.py`.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { LEFT, MIB, assert, check, connect, randomBytes, receives } from './checks.mjs';

await check('Python echoes all messages of Node', async (url) => {
    const node = await connect(url);
    const python = await echo(url);
    for (let number = 0; number < 1000; number += 1) {
        node.socket.send(Buffer.alloc(number, number));
    }
    for (let number = 0; number < 1000; number += 1) {
        await receives(node, Buffer.alloc(number, number));
    }
    const large = randomBytes(10 * MIB);
    await node.send(large.subarray(0, MIB), { fin: false });
    await node.send(large.subarray(MIB), { fin: true });
    await receives(node, large);
    node.socket.close(4001, 'bye');
    assert.equal(await python.end, LEFT);
});

await check('Python connects first, and both stream at once', async (url) => {
    const python = await echo(url);
    const node = await connect(url);
    const large = [randomBytes(10 * MIB), randomBytes(10 * MIB), randomBytes(10 * MIB)];
    large.forEach((message) => node.socket.send(message));
    for (const message of large) {
        await receives(node, message);
    }
    node.socket.close();
    assert.equal(await python.end, LEFT);
});

await check('killing a process closes the peer with 1000', async (url) => {
    const node = await connect(url);
    const python = await echo(url);
    await node.send(Buffer.from('before'));
    await receives(node, 'before');
    python.process.kill('SIGKILL');
    assert.equal(await node.closed, LEFT);
});

/// Starts the Python client. `end` resolves to the code and reason of its close frame.
async function echo(url) {
    const script = fileURLToPath(new URL('echo.py', import.meta.url));
    const child = spawn(process.env.PYTHON, [script, url], { stdio: ['ignore', 'pipe', 'inherit'] });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, 'open');
    return { process: child, end: lines.next().then(({ value }) => value) };
}
