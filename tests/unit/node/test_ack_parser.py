"""Acknowledgements as a connection reads them: whatever comes between them, and wherever a read is cut."""

import random

import pytest

from sandwich_node.publishing.appends import AckClient

INBOX = "_INBOX.a+b"
SID = 7


def message(subject: str, sid: int, body: bytes) -> bytes:
    return b"MSG %b %d %d\r\n%b\r\n" % (subject.encode(), sid, len(body), body)


def ack(number: int, seq: int, stream: str = "SANDWICH_bot") -> bytes:
    return message(f"{INBOX}.{number}", SID, b'{"stream":"%b", "seq":%d}' % (stream.encode(), seq))


class Reader:
    """A client that is not connected; what it reads is given to `read`."""

    def __init__(self) -> None:
        self.client = AckClient()
        self.stored: list[tuple[int, int]] = []
        self.others: list[tuple[bytes, bytes, bool]] = []
        self.numbers: list[int] = []
        """Of all, in the order in which they were given on."""
        self.client.on_stored = self._stored
        self.client.on_ack = self._other
        self.client._acks_sid = SID
        self.client._ps.expect(INBOX, SID)

    def _stored(self, number: int, seq: int) -> None:
        self.numbers.append(number)
        self.stored.append((number, seq))

    def _other(self, subject: bytes, data: bytes, headers: bytes | None) -> None:
        number = subject.rsplit(b".")[-1]
        self.numbers += [int(number)] if number.isdigit() else []
        self.others.append((subject, data, headers is not None))

    async def read(self, *parts: bytes) -> None:
        for part in parts:
            await self.client._ps.parse(part)


REFUSED = b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 5"},"stream":"S","seq":0}'
DUPLICATE = b'{"stream":"S","seq":4,"duplicate":true}'
NO_RESPONDERS = b"HMSG _INBOX.a+b.3 7 16 16\r\nNATS/1.0 503\r\n\r\n\r\n"


async def test_acknowledgements_of_one_read_are_taken_in_order() -> None:
    reader = Reader()
    await reader.read(ack(1, 10) + ack(2, 11) + ack(3, 12))
    assert reader.stored == [(1, 10), (2, 11), (3, 12)]
    assert reader.client.stats["in_msgs"] == 3


@pytest.mark.parametrize(
    ("between", "other"),
    [
        (message(f"{INBOX}.3", SID, REFUSED), (b"_INBOX.a+b.3", REFUSED, False)),
        (message(f"{INBOX}.3", SID, DUPLICATE), (b"_INBOX.a+b.3", DUPLICATE, False)),
        (message(f"{INBOX}.x", SID, b"{}"), (b"_INBOX.a+b.x", b"{}", False)),
        (message(f"{INBOX}.3", SID, b""), (b"_INBOX.a+b.3", b"", False)),
        (message(f"{INBOX}.3", SID, b'{"stream":"S","seq":0}'), (b"_INBOX.a+b.3", b'{"stream":"S","seq":0}', False)),
        (NO_RESPONDERS, (b"_INBOX.a+b.3", b"", True)),
        (message(f"{INBOX}.3", 8, b'{"stream":"S","seq":3}'), None),
        (message("_INBOX.axb.3", 8, b'{"stream":"S","seq":3}'), None),
        (b"+OK\r\n", None),
    ],
)
async def test_what_comes_between_is_left_to_others(between: bytes, other: tuple[bytes, bytes, bool] | None) -> None:
    whole = ack(1, 10) + between + ack(2, 11)
    for cut in range(len(whole) + 1):
        reader = Reader()
        await reader.read(whole[:cut], whole[cut:])
        # One that is cut, or comes behind something else in the same read, is read by nats-py.
        numbers = [number for number, _ in reader.stored] + [
            int(subject.rsplit(b".")[-1])
            for subject, data, _ in reader.others
            if data in (b'{"stream":"SANDWICH_bot", "seq":10}', b'{"stream":"SANDWICH_bot", "seq":11}')
        ]
        assert sorted(numbers) == [1, 2]
        rest = [found for found in reader.others if b"SANDWICH_bot" not in found[1]]
        assert rest == ([other] if other is not None else [])


async def test_a_body_with_a_line_break_is_not_taken_for_an_end() -> None:
    """Another client on the inbox: the size decides where a message ends."""
    body = b'{"stream":"S","seq":3}\r\n' + ack(9, 99)
    reader = Reader()
    await reader.read(message(f"{INBOX}.3", SID, body) + ack(4, 13))
    assert reader.others[0][1] == body
    assert (9, 99) not in reader.stored


async def test_any_cuts_give_what_one_read_gives() -> None:
    chance = random.Random(5)
    pieces = [ack(1, 10), message(f"{INBOX}.2", SID, REFUSED), ack(3, 11), NO_RESPONDERS, ack(4, 12), ack(5, 13)]
    whole = b"".join(pieces)
    for _ in range(200):
        cuts = sorted(chance.sample(range(1, len(whole)), 5))
        reader = Reader()
        await reader.read(*(whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)))
        assert reader.numbers == [1, 2, 3, 3, 4, 5]
        assert [seq for _, seq in reader.stored] == [seq for number, seq in SEQUENCES if (number, seq) in reader.stored]


SEQUENCES = [(1, 10), (3, 11), (4, 12), (5, 13)]
