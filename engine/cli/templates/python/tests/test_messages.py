"""Each test is given `t`: this application on an engine of its own, with nothing in it yet."""

from headrace.testing import Harness

from backend.messages import list_messages, send


async def test_a_message_is_listed(t: Harness) -> None:
    await t.mutation(send, author="ada", body="hello")

    (message,) = await t.query(list_messages)
    assert message["body"] == "hello"
