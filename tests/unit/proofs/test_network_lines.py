"""What the proof's network knows of what passes through it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.node.sockets import PONG, TEXT, frame
from tests.proofs.network_lines import Frames, is_mutation

UPGRADE = b"GET /api/sync HTTP/1.1\r\nHost: test\r\nUpgrade: WebSocket\r\n\r\n"
FRAMES = [frame(TEXT, b"x" * length) for length in (0, 1, 125, 126, 70_000)]


def fed(*parts: bytes) -> Sequence[bytes]:
    frames = Frames()
    return [frame for part in parts for frame in frames.fed(part)]


@given(st.lists(st.sampled_from(FRAMES)), st.lists(st.integers(1, 80_000)))
def test_frames_are_whole_wherever_what_comes_is_cut(said: list[bytes], sizes: list[int]) -> None:
    data = UPGRADE + b"".join(said)
    parts = []
    for size in sizes:
        parts.append(data[:size])
        data = data[size:]

    assert [UPGRADE, *said] == fed(*parts, data)


def test_another_request_passes_as_it_comes() -> None:
    request, body = b"POST /api/query_ts HTTP/1.1\r\nHost: test\r\n\r\n", b"{}"

    assert [request, body] == fed(request + body)
    assert [request, body] == fed(request, body)


def test_a_mutation_is_known_through_its_mask() -> None:
    mask = b"\x01\x02\x03\x04"

    def masked(text: bytes) -> bytes:
        inside = bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
        return bytes([0x80 | TEXT, 0x80 | len(text)]) + mask + inside

    assert is_mutation(masked(b'{"type":"Mutation","requestId":1}'))
    assert is_mutation(frame(TEXT, b'{"type": "Mutation", "args": "' + b"x" * 200 + b'"}'))
    assert not is_mutation(masked(b'{"type":"Action","requestId":1}'))
    assert not is_mutation(frame(PONG, b""))
    assert not is_mutation(UPGRADE)
