"""A connection to a peer, which outlives the WebSockets that it consists of."""

import asyncio
import base64
import contextlib
import json
import random
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import ConnectionClosed, InvalidURI, WebSocketException
from websockets.protocol import State as SocketState
from websockets.typing import Subprotocol

from .closing import Attempts, action_of, seconds_in
from .session import MakeSession, Plain, Session

SUBPROTOCOL = Subprotocol("arc-relay.v1")

State = Literal["connecting", "waiting", "paired", "closed"]


class Closed(Exception):
    """A connection has closed for good: by this program (1000), or because coming again is of no use."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        """The close code, as in docs/protocol.md."""


@dataclass(frozen=True)
class Waiting:
    """The connection is the first with its code, and waits for a peer."""


@dataclass(frozen=True)
class Paired:
    """A peer is there. After each of these, the two begin anew."""


@dataclass(frozen=True)
class Unpaired:
    """The peer has gone."""

    orderly: bool
    """Whether an encrypted peer has taken leave: nothing it sent is missing."""


@dataclass(frozen=True)
class Draining:
    """The relay is about to stop."""

    within: float
    """Seconds."""


@dataclass(frozen=True)
class Reconnecting:
    """The next attempt comes after a pause."""

    code: int
    reason: str
    pause: float
    """Seconds."""


Event = Waiting | Paired | Unpaired | Draining | Reconnecting


class Connection:
    """A connection to the peer, by a relay. `connect` makes one, and `async with` opens and closes it."""

    def __init__(
        self,
        url: str,
        code: str,
        *,
        token: str | None = None,
        side: str | None = None,
        session: MakeSession | None = None,
        on_event: Callable[[Event], None] = lambda event: None,
        max_queue: int = 1 << 20,
        max_message: int = 64 << 20,
        heartbeat: float = 25.0,
        patience: float = 20.0,
    ) -> None:
        self._target = _target(url, code, side if side is not None else secrets.token_urlsafe(16))
        self._subprotocols = [SUBPROTOCOL]
        if token is not None:
            encoded = base64.urlsafe_b64encode(token.encode()).rstrip(b"=").decode()
            self._subprotocols.append(Subprotocol(f"arc-relay.token.{encoded}"))
        self._make_session: MakeSession = session or (lambda is_first: Plain())
        self._on_event = on_event
        self._max_queue, self._max_message = max_queue, max_message
        self._heartbeat, self._patience = heartbeat, patience
        self._state: State = "connecting"
        self._socket: ClientConnection | None = None
        self._session: Session = Plain()
        self._is_first = self._is_orderly = self._is_closing = False
        self._attempts = Attempts()
        self._after: float | None = None
        self._last_life = 0.0
        self._holds = False
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._closed: Closed | None = None
        self._changed = asyncio.Condition()
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        # One attempt and its WebSocket, until `reconnect` gives it up.
        self._meeting: asyncio.Task[tuple[int, str]] | None = None
        self._given_up: str | None = None
        self._is_hurried = self._is_told_to_wait = False
        self._hurry = asyncio.Event()
        # The closing handshakes of WebSockets that were given up.
        self._leaving: set[asyncio.Task[None]] = set()

    @property
    def state(self) -> State:
        """Where the connection stands."""
        return self._state

    async def __aenter__(self) -> "Connection":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def send(self, message: bytes | bytearray | memoryview | str) -> None:
        """Sends a message to the peer. Waits until there is one, and until what is buffered has gone.

        Messages arrive in the order of the calls. Raises `Closed` if the connection is closed before the message was handed
        over.
        """
        content = message.encode() if isinstance(message, str) else bytes(message)
        async with self._sending:
            while not await self._try_send(content):
                pass

    async def _try_send(self, content: bytes) -> bool:
        """Sends a message in one meeting. False if that has ended before the last part."""
        await self._until(lambda: self._state == "paired")
        socket, session = self._socket, self._session
        for part in session.seal(content):
            if socket is None or session is not self._session or socket.state is not SocketState.OPEN:
                await asyncio.sleep(0)
                return False
            try:
                await socket.send(part)
            except ConnectionClosed:
                pass  # it may have arrived
        return True

    def reconnect(self, reason: str = "the program asked for it") -> None:
        """Gives the WebSocket up, and comes again: when the device has another network, or the peer makes no sense.

        Without an open WebSocket, it ends the pause or the attempt, and tries at once: at most once in 10 s, so a program may
        call it as often as it likes. A pause that the relay asked for stays. It is for the thread of the event loop.
        """
        if self._closed is not None or self._is_closing or self._task is None:
            return
        if self._socket is None:
            if self._is_told_to_wait or not self._attempts.hurry(time.monotonic()):
                return
            self._is_hurried = True
        self._given_up = reason
        if self._meeting is not None:
            self._meeting.cancel()
        else:
            self._hurry.set()

    async def close(self) -> None:
        """Closes the connection for good, behind what was sent. Without a peer, nothing is waited for."""
        self._is_closing = True
        if self._state == "paired":
            sent = asyncio.create_task(self._sent())
            alone = asyncio.create_task(self._until(lambda: self._state != "paired"))
            _, late = await asyncio.wait({sent, alone}, return_when=asyncio.FIRST_COMPLETED)
            for waiting in late:
                waiting.cancel()
            await asyncio.gather(sent, alone, return_exceptions=True)
            if self._state == "paired" and self._socket is not None:
                with contextlib.suppress(ConnectionClosed):
                    await self._send_all(self._socket, self._session.farewell())
        await self._end(Closed(1000, "closed by this program"))
        socket, task = self._socket, self._task
        if socket is not None:
            await socket.close()
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    async def _sent(self) -> None:
        async with self._sending:
            pass

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The peer's messages. Ends when this program closes the connection, and raises `Closed` otherwise.

        A program that takes none slows the peer: `max_queue` bytes wait at most.
        """
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._queue or self._closed is not None)
                if not self._queue:
                    break
                message = self._queue.popleft()
                self._queued -= len(message)
                self._changed.notify_all()
            yield message
        assert self._closed is not None
        if self._closed.code != 1000:
            raise self._closed

    async def _until(self, holds: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: holds() or self._closed is not None)
        if self._closed is not None:
            raise self._closed

    def _tell(self, event: Event) -> None:
        try:
            self._on_event(event)
        except Exception as error:
            # The program's own: asyncio logs it, as it does for each callback.
            context = {"message": "on_event has raised an exception", "exception": error}
            asyncio.get_running_loop().call_exception_handler(context)

    async def _enter(self, state: State) -> None:
        async with self._changed:
            self._state = state
            self._changed.notify_all()

    async def _end(self, closed: Closed) -> None:
        if self._closed is None:
            self._closed = closed
            await self._enter("closed")

    async def _run(self) -> None:
        while self._closed is None and not self._is_closing:
            self._after = None
            code, reason = await self._attempt()
            was_paired, orderly = self._state == "paired", self._is_orderly
            if self._closed is not None:
                break
            # Before the events: what they are told to can call `reconnect`.
            self._is_told_to_wait = action_of(code) == "later"
            pause = 0.0 if self._is_hurried else self._attempts.lose(code, self._after, time.monotonic(), random.random())
            await self._enter("connecting")
            if was_paired:
                self._tell(Unpaired(orderly))
            if self._is_closing:
                break
            if pause is None:
                await self._end(Closed(code, reason))
                break
            if self._is_hurried:
                self._is_hurried = False
                self._tell(Reconnecting(code, reason, 0.0))
                continue
            self._tell(Reconnecting(code, reason, pause))
            await self._rest(pause)

    async def _attempt(self) -> tuple[int, str]:
        """One WebSocket, also if none opens or `reconnect` gives it up. Returns its close code and reason."""
        self._given_up = None
        self._is_told_to_wait = self._is_hurried = False
        self._hurry.clear()
        self._meeting = asyncio.create_task(self._meet())
        try:
            return await self._meeting
        except asyncio.CancelledError:
            # Or the whole connection is given up.
            if self._given_up is None or self._closed is not None:
                raise
            return 4002, self._given_up
        except (InvalidURI, ValueError) as error:
            return 4400, str(error)
        except (OSError, TimeoutError, WebSocketException) as error:
            return 1006, str(error)
        finally:
            self._meeting = self._socket = None

    async def _rest(self, pause: float) -> None:
        try:
            await asyncio.wait_for(self._hurry.wait(), pause)
        except asyncio.TimeoutError:
            return
        self._is_hurried = False
        self._tell(Reconnecting(4002, self._given_up or "", 0.0))

    async def _meet(self) -> tuple[int, str]:
        """One WebSocket, from its beginning to its end. Returns its close code and reason."""
        self._is_first = self._is_orderly = self._holds = False
        socket = await open_websocket(
            self._target,
            subprotocols=self._subprotocols,
            compression=None,
            proxy=None,
            max_size=self._max_message,
            open_timeout=self._patience,
            close_timeout=1,
            ping_interval=None,  # the heartbeat is the relay's own, and knows of a program that takes no messages
        )
        self._attempts.open(time.monotonic())
        if socket.subprotocol != SUBPROTOCOL:
            await socket.close()
            return 4400, f"the relay does not speak {SUBPROTOCOL}"
        self._socket = socket
        self._last_life = time.monotonic()
        heart = asyncio.create_task(self._beat(socket))
        try:
            while True:
                message = await socket.recv()
                self._last_life = time.monotonic()
                if isinstance(message, str):
                    await self._control(socket, message)
                else:
                    await self._deliver(socket, message)
        except ConnectionClosed as error:
            return (1006, "") if error.rcvd is None else (error.rcvd.code, error.rcvd.reason)
        except _MeetingFailed as error:
            await socket.close()
            return 4002, str(error)
        except asyncio.CancelledError:
            if self._given_up is not None:
                # A dead network does not answer, so nothing waits for this handshake.
                leaving = asyncio.create_task(socket.close())
                self._leaving.add(leaving)
                leaving.add_done_callback(self._leaving.discard)
            raise
        finally:
            heart.cancel()
            await asyncio.gather(heart, return_exceptions=True)

    async def _control(self, socket: ClientConnection, text: str) -> None:
        """Takes a control message of the relay. Those of a later version are ignored, and what is none."""
        try:
            control = json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return
        if not isinstance(control, dict):
            return
        match control.get("type"):
            case "waiting":
                self._is_first = True
                await self._enter("waiting")
                self._tell(Waiting())
            case "paired":
                self._session = self._make_session(self._is_first)
                await self._send_all(socket, self._session.opening())
                if isinstance(self._session, Plain):
                    await self._begin()
            case "draining":
                self._tell(Draining(seconds_in(control.get("within"))))
            case "retry":
                self._after = seconds_in(control.get("after"))

    async def _begin(self) -> None:
        self._attempts.meet(time.monotonic())
        await self._enter("paired")
        self._tell(Paired())

    async def _deliver(self, socket: ClientConnection, message: bytes) -> None:
        try:
            received = self._session.receive(message)
        except Exception as error:
            # A relay that changes messages, or a peer with another secret.
            raise _MeetingFailed(error or type(error).__name__) from error
        await self._send_all(socket, received.replies)
        if received.ready:
            await self._begin()
        self._is_orderly |= received.orderly
        if received.message is None:
            return
        async with self._changed:
            self._holds = True
            await self._changed.wait_for(lambda: self._queued < self._max_queue or self._closed is not None)
            self._holds = False
            self._last_life = time.monotonic()
            self._queue.append(received.message)
            self._queued += len(received.message)
            self._changed.notify_all()

    async def _send_all(self, socket: ClientConnection, messages: list[bytes]) -> None:
        for message in messages:
            await socket.send(message)

    async def _beat(self, socket: ClientConnection) -> None:
        """Asks the relay after a silence, and gives the WebSocket up if it does not answer."""
        is_asked, buffered = False, 0
        while True:
            await asyncio.sleep(min(1.0, self._heartbeat))
            before, buffered = buffered, socket.transport.get_write_buffer_size()
            # What leaves the buffer is received by the relay's system. An answer waits behind it, and behind messages
            # that the program has not taken.
            if buffered < before or self._holds:
                self._last_life = time.monotonic()
            silence = time.monotonic() - self._last_life
            if silence <= self._heartbeat:
                is_asked = False
            elif not is_asked:
                is_asked = True
                # It may wait behind what is buffered.
                asyncio.ensure_future(self._ask(socket))
            elif silence > self._heartbeat + self._patience:
                socket.transport.abort()
                return

    async def _ask(self, socket: ClientConnection) -> None:
        try:
            await socket.send('{"type":"ping"}')
        except ConnectionClosed:
            pass  # the reader sees the end, too


class _MeetingFailed(Exception):
    """The peer's messages are not those of the session."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _target(url: str, code: str, side: str) -> str:
    scheme, host, path, query, _ = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in ("pair", "side")]
    return urlunsplit((scheme, host, path or "/", urlencode([*kept, ("pair", code), ("side", side)]), ""))
