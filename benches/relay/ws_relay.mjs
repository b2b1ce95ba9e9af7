// The straightforward relay on Node's `ws`: it assembles each message and sends it on. It runs until it is killed.

import { WebSocketServer } from 'ws';

const waiting = new Map();
const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });

server.on('listening', () => console.log(`ws://127.0.0.1:${server.address().port} `));

server.on('connection', (socket, request) => {
    const code = new URL(request.url, 'ws://relay').searchParams.get('pair');
    socket.on('error', () => {}); // a close event follows
    const peer = waiting.get(code);
    if (peer) {
        waiting.delete(code);
        peer.socket.off('message', peer.hold);
        peer.socket.off('close', peer.leave);
        for (const [data, binary] of peer.held) socket.send(data, { binary });
        join(socket, peer.socket);
        join(peer.socket, socket);
        return;
    }
    const held = [];
    const hold = (data, binary) => held.push([data, binary]);
    const leave = () => waiting.delete(code);
    waiting.set(code, { socket, held, hold, leave });
    socket.on('message', hold);
    socket.on('close', leave);
});

function join(from, to) {
    from.on('message', (data, binary) => to.send(data, { binary }));
    from.on('close', () => to.close(1000));
}
