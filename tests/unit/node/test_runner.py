"""What a shard's runner works out by itself: whose token it is, and how much Discord would replay."""

import base64

from sandwich_node.secret import bot_id_of
from sandwich_node.shards.resume import replay_events


def test_the_bots_id_is_read_from_a_token_of_the_usual_form_only() -> None:
    head = base64.urlsafe_b64encode(b"123456789012345678").decode().rstrip("=")
    assert bot_id_of(f"{head}.GaBcDe.xyz") == "123456789012345678"
    assert bot_id_of("some-other-token") == ""


def test_discords_replay_grows_with_the_guilds_within_bounds() -> None:
    assert [replay_events(guilds) for guilds in (0, 10, 1000)] == [100, 750, 3500]
