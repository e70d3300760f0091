import pytest

from sandwich_coordinator.intents import ALL, check_intents, intent_names, intents_from_names, privileged_names


def test_all_intents_are_the_bits_that_discord_defines() -> None:
    assert ALL == 53608447
    assert intents_from_names(intent_names(ALL)) == ALL


def test_former_names_are_known_and_privileged_ones_are_listed() -> None:
    assert intents_from_names(["guild_bans"]) == 4
    assert privileged_names(33026) == ["GUILD_MEMBERS", "GUILD_PRESENCES", "MESSAGE_CONTENT"]


def test_undefined_bits_are_refused() -> None:
    with pytest.raises(ValueError, match="17"):
        check_intents(1 << 17)
