"""The recipes of CONTRIBUTING.md are followed: each test fails while a step of one is missing."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from sandwich_coordinator.app_options import APP_OPTIONS, CacheConfig, EventsConfig, InvitesConfig
from sandwich_coordinator.cache_entities import ALWAYS, COLLECTIONS, ENTITIES, CachedEntity
from sandwich_coordinator.cli.main import app as operator_app
from sandwich_coordinator.config import AppConfig
from sandwich_coordinator.event_names import DOCUMENTED
from sandwich_coordinator.intents import INTENTS
from sandwich_coordinator.types import AppRecord, CacheSpec, EventsSpec, InvitesSpec
from sandwich_node.cache.operations import TRANSLATIONS
from sandwich_node.cache.settings import LETTERS
from sandwich_sdk.wire import cache_keys
from verification.cache_check.truth import AS_THEY_ARE, COMPARED_APART

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "cluster.example.yml").read_text()
CACHE_GUIDE = (ROOT / "docs/guide/cache.md").read_text()
RECIPES = (ROOT / "CONTRIBUTING.md").read_text().partition("## Recipes\n")[2].partition("\n## ")[0]
entities = pytest.mark.parametrize("entity", ENTITIES, ids=lambda entity: entity.option)


def section(text: str, name: str, indent: int) -> str:
    """The lines of one section of cluster.example.yml, without its first line."""
    found = re.search(rf"^ {{{indent}}}{name}:.*\n((?: {{{indent + 1},}}.*\n?)*)", text, re.MULTILINE)
    return found[1] if found else ""


def has_key(text: str, name: str, indent: int) -> bool:
    return re.search(rf"^ {{{indent}}}{name}: ", text + "\n", re.MULTILINE) is not None


# --- the recipes themselves -----------------------------------------------------------------------------------------


def test_there_is_a_recipe_for_each_kind_of_addition() -> None:
    headings = re.findall(r"^### (.+)$", RECIPES, re.MULTILINE)
    assert headings == [
        "A new event filter",
        "A new cached entity",
        "A new application option",
        "A new command",
        "A new HTTP endpoint",
        "A new route of the API",
        "A page or a setting of the dashboard",
        "A new sink",
    ]


def test_every_file_that_a_recipe_names_exists() -> None:
    named = re.findall(r"`([\w./-]+\.(?:py|lua|md|yml|json|toml)|[\w/.-]+/)`", RECIPES)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


# --- a cached entity ------------------------------------------------------------------------------------------------


@entities
def test_a_cached_entity_is_a_setting_with_its_default(entity: CachedEntity) -> None:
    if entity.option == "messages":
        assert CacheConfig().messages is None
        assert CacheSpec().messages_per_channel == 0
    else:
        assert getattr(CacheConfig(), entity.option) is entity.is_default
        assert getattr(CacheSpec(), entity.option) is entity.is_default
    assert has_key(section(EXAMPLE, "cache", 4), entity.option, 6)


def test_every_cache_setting_that_is_a_switch_is_in_the_table() -> None:
    others = {"enabled", "namespace", "chunk_members"}
    assert {entity.option for entity in ENTITIES} == CacheConfig.model_fields.keys() - others


def test_letters_and_options_are_unique() -> None:
    letters = [entity.letter for entity in ENTITIES if entity.letter]
    assert len(letters) == len(set(letters))
    assert all(len(letter) == 1 and letter.islower() for letter in letters)
    assert len({entity.option for entity in ENTITIES}) == len(ENTITIES)


@entities
def test_the_events_and_the_intent_of_a_cached_entity_are_discords(entity: CachedEntity) -> None:
    assert set(entity.events) <= DOCUMENTED
    assert len(entity.events) == len(set(entity.events))
    assert entity.intent in INTENTS


def test_each_event_of_the_table_has_a_translation_and_no_other_has_one() -> None:
    assert {name for entity in ENTITIES for name in entity.events}.union(ALWAYS) == TRANSLATIONS.keys()


def test_the_collections_are_those_of_the_contract_and_their_keys_are_frozen() -> None:
    collections = [entity.collection for entity in COLLECTIONS.values()]
    assert tuple(collections) == cache_keys.COLLECTIONS
    assert list(LETTERS.values()) == collections
    frozen = json.loads((ROOT / "tests/golden/cache_keys.json").read_text())["keys"]
    assert set(collections) <= frozen.keys()


def test_the_cache_check_compares_every_collection() -> None:
    assert {entity.collection for entity in COLLECTIONS.values()} == AS_THEY_ARE.keys() | COMPARED_APART
    compared = set(re.findall(r'kept\.get\("(\w+)"', (ROOT / "verification/cache_check/compare.py").read_text()))
    assert compared == COMPARED_APART


@entities
def test_a_cached_entity_has_its_row_in_the_guide(entity: CachedEntity) -> None:
    option = f"`{entity.option}`" if entity.is_default else f"`{entity.option}` *off*"
    rows = [line for line in CACHE_GUIDE.splitlines() if line.startswith(f"| {option} |")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    shown = {"guilds": "`:guild`", "users": "`user`, `mutual`", "messages": "`:messages:`"}
    place = f"`:{entity.collection}`" if entity.collection else shown[entity.option]
    assert cells[1:] == [place, entity.intent, ", ".join(entity.required), ", ".join(entity.further) or "-"]


@entities
def test_every_event_of_a_cached_entity_is_in_the_table_of_changes(entity: CachedEntity) -> None:
    changes = CACHE_GUIDE.partition("## What each event changes\n")[2].partition("\n## ")[0]
    named = re.findall(r"[A-Z]+(?:_[A-Z]+)*_?\*?", changes)
    families = tuple(name.removesuffix("*") for name in named if name.endswith("_*"))
    assert [name for name in entity.events if name not in named and not name.startswith(families)] == []


# --- an application option, an event filter -------------------------------------------------------------------------


def test_an_option_is_in_the_table_the_configuration_and_the_record() -> None:
    keys = [option.key for option in APP_OPTIONS]
    assert keys == [name for name in AppConfig.model_fields if name != "token"]
    assert set(keys) == set(AppRecord.__struct_fields__) - {"app", "token", "token_hash", "paused_at"}


@pytest.mark.parametrize("key", [option.key for option in APP_OPTIONS])
def test_an_option_is_documented(key: str) -> None:
    assert has_key(section(EXAMPLE, "apps", 0), key, 4) or section(section(EXAMPLE, "apps", 0), key, 4)
    assert f"| `{key}` |" in (ROOT / "docs/reference/configuration.md").read_text()


def test_a_section_of_options_has_the_same_keys_in_the_configuration_and_the_record() -> None:
    assert set(EventsConfig.model_fields) == set(EventsSpec.__struct_fields__)
    assert len(InvitesConfig.model_fields) == len(InvitesSpec.__struct_fields__)


@pytest.mark.parametrize("key", EventsConfig.model_fields)
def test_an_event_filter_is_documented(key: str) -> None:
    assert has_key(section(EXAMPLE, "events", 4), key, 6)
    assert f"| `{key}: " in (ROOT / "docs/guide/filters.md").read_text()


@pytest.mark.parametrize("key", EventsConfig.model_fields)
def test_an_event_filter_takes_effect(key: str) -> None:
    filters = (ROOT / "node/sandwich_node/events/filters.py").read_text()
    assert f"spec.{key}" in filters


# --- a command, an HTTP endpoint, a sink ----------------------------------------------------------------------------


def commands(command: Any, path: str) -> Iterator[tuple[str, str]]:
    """(full name, help) of each command that does something."""
    if not hasattr(command, "commands"):
        yield path, command.help or ""
        return
    for name, inner in command.commands.items():
        yield from commands(inner, f"{path} {name}")


OPERATOR_COMMANDS = dict(commands(typer.main.get_command(operator_app), "sandwich"))


@pytest.mark.parametrize("name", OPERATOR_COMMANDS)
def test_a_command_has_a_row_in_the_reference_and_an_example_in_its_help(name: str) -> None:
    rows = [line for line in (ROOT / "docs/reference/commands.md").read_text().splitlines() if line.startswith("| `")]
    named = "|".join(re.escape(part) for part in (f"`{name}`", f"`{name} "))
    assert any(re.search(named, row.split("|")[1] if "\\|" not in row else row) for row in rows)
    assert f"Example: {name}" in OPERATOR_COMMANDS[name]


def test_an_http_endpoint_has_a_row_in_the_guide_and_is_named_in_its_module() -> None:
    source = (ROOT / "node/sandwich_node/http/app.py").read_text()
    routes = re.findall(r'add_(?:get|post|put|delete)\("([^"]+)"', source)
    guide = (ROOT / "docs/guide/operations.md").read_text()
    assert routes
    assert [route for route in routes if f"| `{route}` |" not in guide] == []


def test_the_log_of_a_sink_implements_the_protocol() -> None:
    # mypy compares the signatures; a sink that is not reached from a typed place would not be compared.
    from sandwich_node.publishing.jetstream import JetStreamLog
    from sandwich_node.publishing.log import Log

    wanted = {name for name in vars(Log) if not name.startswith("_")}
    assert wanted
    assert [name for name in wanted if not hasattr(JetStreamLog, name)] == []


def test_stored_options_survive_export_and_parsing() -> None:
    from sandwich_coordinator.app_options import exported_options, stored_options

    config = AppConfig.model_validate({"token": {"env": "T"}, "intents": 513, "cache": {"presences": True}})
    record = AppRecord(app="a", token="t", token_hash="h", **stored_options(config))
    again = AppConfig.model_validate({"token": {"env": "T"}, **exported_options(record)})
    assert msgspec.structs.replace(record, **stored_options(again)) == record
