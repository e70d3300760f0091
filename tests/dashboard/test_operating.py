"""An operator at work in a browser: what is wrong, acting on it, sign-in, settings, a lost connection."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Browser, Route, expect

from sandwich_coordinator.access.roles import ANONYMOUS, Identity, Role
from sandwich_coordinator.operations.scaling import CHANGED_MEANWHILE
from sandwich_coordinator.operations.webhooks import open_destination
from sandwich_coordinator.sealing import token_hash
from sandwich_coordinator.store.base import Compare, Put
from sandwich_coordinator.types import AppRecord, ClaimRecord, NodeRecord, ProposalRecord, ShardsSpec
from sandwich_coordinator.webhooks.delivery import Destination
from tests.dashboard.conftest import PHONE, Visit, visit
from tests.support.api import ADMIN, KEYS, Api, StoredFacts
from tests.support.dashboard_cluster import LONG, Shape, dashboard_over
from tests.unit.coordinator.test_adding import Discord

pytestmark = pytest.mark.asyncio(loop_scope="module")
NEW_TOKEN = "MTAwMDAwMDAwMDAyMDAw.GbbbbY.canary-of-the-new-bot-9876543210"
MARKUP = "<img src=x onerror=alert(1)>"


async def stored(api: Api, key: str) -> bytes:
    item = await api.store.get(key)
    assert item is not None
    return item.value


async def write(api: Api, key: str, value: bytes) -> None:
    """A change by another program: the node's view has it at once."""
    item = await api.store.get(key)
    assert item is not None
    guard = Compare(key, "mod_revision", item.mod_revision)
    await api.store.txn((guard,), (Put(key, value, item.lease),))
    facts = api.cluster.facts
    assert isinstance(facts, StoredFacts)
    await facts.refresh()


async def node(api: Api, name: str) -> NodeRecord:
    return msgspec.json.decode(await stored(api, KEYS.node(name)), type=NodeRecord)


async def app(api: Api, name: str) -> AppRecord:
    return msgspec.json.decode(await stored(api, KEYS.app(name)), type=AppRecord)


# --- what is wrong --------------------------------------------------------------------------------------------------


async def test_the_overview_says_what_is_wrong_with_the_action_beside_it(sick: Visit) -> None:
    await sick.open("/")
    await expect(sick.page.get_by_role("heading", level=1)).to_have_text(re.compile("things? do(es)? not work"))
    row = sick.page.get_by_role("listitem").filter(has_text="dead-letters").first
    await expect(row).to_contain_text("What to do:")
    await row.get_by_role("link", name="Dead letters").click()
    await expect(sick.page).to_have_url(re.compile(r"/events\?view=dead&app=welcomer$"))


async def test_all_is_well_in_words(well: Visit) -> None:
    node_record = await node(well.api, "gamma")
    await write(well.api, KEYS.node("gamma"), msgspec.structs.replace(node_record, state="ready").encode())
    await well.open("/")
    await expect(well.page.get_by_role("heading", level=1)).to_have_text("All is well")
    await well.has("Nothing is wrong and nothing waits for you.")


async def test_the_last_hours_are_drawn(well: Visit) -> None:
    await well.open("/apps/music")
    chart = well.page.get_by_role("img", name=re.compile(r"^Events a second: \d+ now$"))
    await expect(chart).to_be_visible()
    await well.has(re.compile(r"since .*\d\d:\d\d"))
    await expect(chart.locator("canvas")).to_have_count(1)


async def test_an_empty_cluster_says_what_to_do_first(browser: Browser) -> None:
    async with dashboard_over(Shape(apps=())) as api, visit(browser, api) as it:
        await it.open("/")
        await it.click("Add the first one")
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("Add an application")
        assert it.faults == []


async def test_of_many_applications_the_worst_ones_are_on_the_overview(browser: Browser) -> None:
    many = tuple((f"app-{number:02}", 1) for number in range(12))
    async with dashboard_over(Shape(apps=(*many, ("zebra", 160)), healthy=False)) as api, visit(browser, api) as it:
        await it.open("/")
        rows = it.page.get_by_role("region", name="Applications").locator("tbody tr")
        await expect(rows).to_have_count(10)
        await expect(rows.first).to_contain_text("zebra")
        # More shards than fit are counted.
        await expect(it.page.get_by_role("link", name=re.compile(r"^zebra, \d+ shards$")).first).to_be_visible()
        await it.click("All 13")
        await expect(it.page.get_by_role("region", name="Applications").locator("tbody tr")).to_have_count(13)
        assert it.faults == []


async def test_a_node_shows_its_shards_in_one_grid_and_by_application(well: Visit) -> None:
    await well.open("/nodes/alpha")
    grid = well.page.get_by_role("list", name="Shards on alpha")
    await expect(grid.get_by_role("link", name="Shard 3 of music: live")).to_be_visible()
    await expect(grid.get_by_role("link")).to_have_count(16 + 6 + 1)
    row = well.page.get_by_role("region", name="Applications on this node").get_by_role("row").filter(has_text="music")
    await expect(row).to_contain_text("6 / 6")


async def test_what_a_member_may_do_is_asked_for_when_someone_looks(well: Visit) -> None:
    location = {"app": "welcomer", "group": 0, "shard": 3, "state": "live", "node": "alpha"}
    member = {"user": {"id": "42", "username": "ada"}, "roles": []}
    asked: list[str] = []

    async def answer(route: Route) -> None:
        path = urlsplit(route.request.url).path
        asked.append(path)
        if path.endswith("/permissions"):
            found: dict[str, Any] = {"guild_id": "7", "user_id": "42", "permissions": str(1 << 5 | 1 << 11 | 1 << 60)}
        elif path.endswith("/members"):
            found = {"guild_id": "7", "members": [member], "complete": True}
        else:
            found = {"guild_id": "7", "locations": [location], "unanswered": []}
        await route.fulfill(json=found)

    await well.page.route("**/api/v1/**/guilds/7/**", answer)
    await well.page.route("**/api/v1/guilds/7", answer)
    await well.open("/cache?view=member&id=7")
    row = well.page.get_by_role("row").filter(has_text="ada")
    await expect(row).to_be_visible()
    assert not [path for path in asked if path.endswith("/permissions")]
    await row.get_by_text("show").first.click()
    await expect(row.get_by_role("listitem")).to_have_text(["MANAGE_GUILD", "SEND_MESSAGES", "bit 60"])


async def test_the_page_of_the_cache_says_how_complete_it_is(well: Visit) -> None:
    await well.open("/cache")
    table = well.page.get_by_role("region", name="How complete the cache is")
    await expect(table.get_by_role("row").filter(has_text="music")).to_contain_text("no node says so yet")


async def test_what_others_wrote_is_shown_as_text(well: Visit) -> None:
    claim = msgspec.json.decode(await stored(well.api, KEYS.claim("welcomer", 0, 5)), type=ClaimRecord)
    changed = msgspec.structs.replace(claim, state="failed", reason=MARKUP)
    await write(well.api, KEYS.claim("welcomer", 0, 5), changed.encode())
    well.api.picture.answers = {}
    await well.open("/shards/welcomer/0/5")
    await well.has(MARKUP)
    assert await well.page.locator("main img").count() == 0


# --- acting ---------------------------------------------------------------------------------------------------------


async def test_a_change_by_another_program_is_shown_without_a_reload(well: Visit) -> None:
    await well.open("/nodes/beta")
    await expect(well.page.locator(".page-head .sub")).to_contain_text("ready")
    record = await node(well.api, "beta")
    await write(well.api, KEYS.node("beta"), msgspec.structs.replace(record, state="cordoned").encode())
    await expect(well.page.locator(".page-head .sub")).to_contain_text("cordoned")


async def test_draining_asks_first_and_shows_that_it_goes_on(well: Visit) -> None:
    await well.open("/nodes/beta")
    await well.click("Drain…")
    dialog = well.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("sessions kept")
    await dialog.get_by_role("button", name="Cancel").click()
    assert (await node(well.api, "beta")).state == "ready"
    await well.click("Drain…")
    await dialog.get_by_role("button", name="Drain").click()
    await expect(well.page.locator(".page-head .sub")).to_contain_text("draining")
    assert (await node(well.api, "beta")).state == "draining"
    assert well.api.recorded == [("test", "POST /nodes/{node}/drain", "")]


async def test_what_ends_sessions_shows_its_cost_and_has_to_be_typed(well: Visit) -> None:
    before = (await well.api.store.list(KEYS.prefix)).revision
    await well.open("/apps/welcomer")
    await well.click("End all sessions and start new ones…")
    dialog = well.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("48 of 412 left")
    restart = dialog.get_by_role("button", name="Restart")
    await expect(restart).to_be_disabled()
    await dialog.get_by_role("textbox").fill("music")
    await expect(restart).to_be_disabled()
    await dialog.get_by_role("textbox").fill("welcomer")
    await expect(restart).to_be_enabled()
    await well.page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)
    assert (await well.api.store.list(KEYS.prefix)).revision == before


async def test_a_refusal_is_shown_in_the_dialog(well: Visit) -> None:
    await well.open("/apps/welcomer")
    await well.page.get_by_label("Only these ids").fill("0-99")
    await (
        well.page.locator("section", has=well.page.get_by_role("heading", name="Scale"))
        .get_by_role("button", name="See the cost…")
        .last.click()
    )
    dialog = well.page.get_by_role("dialog")
    await expect(dialog.get_by_role("alert")).not_to_be_empty()
    await expect(dialog.get_by_role("button", name="Scale")).to_be_disabled()


async def limit_places(api: Api) -> None:
    """Nodes with room for a few shards more."""
    for name in ("alpha", "beta"):
        record = await node(api, name)
        await write(api, KEYS.node(name), msgspec.structs.replace(record, max_shards=28).encode())


async def begin_without_room(it: Visit, verb: str) -> None:
    """Confirm a change that no node has room for."""
    dialog = it.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("No node has room for")
    begin = dialog.get_by_role("button", name=verb)
    await expect(begin).to_be_disabled()
    await dialog.get_by_label("Begin all the same").check()
    await begin.click()
    await expect(dialog).to_have_count(0)


async def test_what_no_node_has_room_for_begins_only_when_that_was_accepted(well: Visit) -> None:
    await limit_places(well.api)
    await well.open("/apps/welcomer")
    scale = well.page.locator("section", has=well.page.get_by_role("heading", name="Scale"))
    await scale.get_by_label("Shard count").fill("40")
    await scale.get_by_role("button", name="See the cost…").last.click()
    await begin_without_room(well, "Scale")
    assert (await app(well.api, "welcomer")).shards.count == 40
    await well.open("/apps/music")
    await well.click("Restart…")
    await begin_without_room(well, "Restart")
    assert [(done, error) for _, done, error in well.api.recorded] == [
        ("POST /apps/{app}/scale", ""),
        ("POST /apps/{app}/restart", ""),
    ]


async def test_settings_that_no_node_has_room_for_are_saved_only_when_that_was_accepted(well: Visit) -> None:
    await limit_places(well.api)
    await well.open("/apps/welcomer/settings")
    await well.page.get_by_label("GUILD_MODERATION").check()
    await well.click("Review changes…")
    await begin_without_room(well, "Save and start new sessions")
    assert (await app(well.api, "welcomer")).intents == 513 | 1 << 2


async def test_a_token_that_no_node_has_room_for_is_replaced_only_when_that_was_accepted(
    browser: Browser, discord: Discord
) -> None:
    discord.bot = "80351110224678912"
    async with dashboard_over(Shape(), api_url=discord.url) as api, visit(browser, api) as it:
        await limit_places(api)
        await it.open("/apps/welcomer/settings")
        await it.page.get_by_label("New token").fill(NEW_TOKEN)
        await it.click("Test it…")
        await begin_without_room(it, "Replace")
        assert (await app(api, "welcomer")).token_hash == token_hash(NEW_TOKEN)
        assert it.faults == []


async def test_the_shard_count_that_was_shown_is_the_one_that_is_accepted(sick: Visit) -> None:
    record = await app(sick.api, "welcomer")
    auto = msgspec.structs.replace(record, shards=ShardsSpec(count="auto"))
    await write(sick.api, KEYS.app("welcomer"), auto.encode())
    await sick.open("/apps/welcomer")
    await sick.has("The leader proposes 96 shards")
    scale = sick.page.locator("section", has=sick.page.get_by_role("heading", name="Scale"))
    await scale.get_by_role("button", name="See the cost…").first.click()
    dialog = sick.page.get_by_role("dialog")
    await expect(dialog).to_contain_text("48 → 96")
    proposal = msgspec.json.decode(await stored(sick.api, KEYS.proposal("welcomer")), type=ProposalRecord)
    await write(sick.api, KEYS.proposal("welcomer"), msgspec.structs.replace(proposal, count=128).encode())
    await dialog.get_by_role("button", name="Accept").click()
    await expect(dialog.get_by_role("alert")).to_contain_text(CHANGED_MEANWHILE)
    assert await sick.api.store.get(KEYS.rollout("welcomer")) is None


async def test_an_application_is_paused_and_resumed(well: Visit) -> None:
    await well.open("/apps/music")
    await well.click("Pause…")
    await well.page.get_by_role("dialog").get_by_role("button", name="Pause").click()
    await expect(well.page.get_by_role("button", name="Resume…")).to_be_visible()
    assert (await app(well.api, "music")).paused
    await well.click("Resume…")
    await well.page.get_by_role("dialog").get_by_role("button", name="Resume").click()
    await expect(well.page.get_by_role("button", name="Pause…")).to_be_visible()
    assert not (await app(well.api, "music")).paused


async def test_settings_are_compared_before_they_are_saved(well: Visit) -> None:
    await well.open("/apps/welcomer/settings")
    field = well.page.get_by_label("events.ignore", exact=True)
    await field.fill("TYPING_START PRESENCE_UPDATE")
    await well.page.get_by_label("large_threshold", exact=True).fill("many")
    await well.click("Review changes…")
    await well.has("must be a whole number")
    await well.page.get_by_label("large_threshold", exact=True).fill("100")
    await well.click("Review changes…")
    dialog = well.page.get_by_role("dialog")
    await expect(dialog.get_by_role("row").filter(has_text="events.ignore")).to_contain_text(
        "TYPING_START, PRESENCE_UPDATE"
    )
    await dialog.get_by_role("button", name=re.compile("^Save")).click()
    await well.has("Saved: 2 changes of welcomer.")
    await expect(field).to_have_value("TYPING_START PRESENCE_UPDATE")
    record = await app(well.api, "welcomer")
    assert (record.events.ignore, record.large_threshold) == (["TYPING_START", "PRESENCE_UPDATE"], 100)


async def test_settings_that_another_admin_changed_meanwhile_are_not_overwritten(well: Visit) -> None:
    await well.open("/apps/welcomer/settings")
    await well.page.get_by_label("route", exact=True).fill("mine")
    await well.click("Review changes…")
    save = well.page.get_by_role("dialog").get_by_role("button", name="Save")
    await expect(save).to_be_enabled()
    # What was reviewed is of before this.
    status, _ = await well.api("PATCH", "/apps/welcomer", {"set": {"route": "theirs"}})
    assert status == 200
    await save.click()
    await expect(well.page.get_by_role("alert").filter(has_text="was changed since it was read")).to_have_count(1)
    assert (await app(well.api, "welcomer")).route == "theirs"
    await well.has("Someone else changed this application meanwhile.")
    await well.click("Show the new values")
    await expect(well.page.get_by_label("route", exact=True)).to_have_value("theirs")


async def test_a_bot_is_added_after_discord_has_confirmed_its_token(browser: Browser, discord: Discord) -> None:
    async with dashboard_over(Shape(), api_url=discord.url) as api, visit(browser, api) as it:
        await it.open("/apps/+new")
        await it.page.get_by_label("Name", exact=True).fill("Greeter!")
        await it.has("only a-z, 0-9, _ and -")
        await it.page.get_by_label("Name", exact=True).fill("greeter")
        await it.page.get_by_label("Bot token").fill(NEW_TOKEN)
        await it.page.get_by_label("MESSAGE_CONTENT").check()
        discord.status = 401
        await it.click("Test the token")
        await expect(it.page.get_by_role("alert")).not_to_be_empty()
        discord.status = 200
        await it.click("Test the token")
        await expect(it.page.get_by_role("alert")).to_contain_text("MESSAGE_CONTENT")
        await it.page.get_by_label("MESSAGE_CONTENT").uncheck()
        await it.click("Test the token")
        await it.has("Discord accepts the token")
        picture = it.page.get_by_role("img", name="Picture of greeter")
        await expect(picture).to_be_visible()
        assert await picture.evaluate("image => image.naturalWidth") == 64, "the policy lets it be shown"
        # Only what was tested is added.
        await it.page.get_by_label("Paused").check()
        await expect(it.page.get_by_role("button", name="Test the token")).to_be_visible()
        await it.click("Test the token")
        await it.click("Add greeter")
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("greeter")
        assert (await app(api, "greeter")).intents == 513
        sent = await it.read()
        assert "greeter" in sent
        assert NEW_TOKEN not in sent
        assert it.faults == []


async def test_a_form_that_was_refused_is_changed_and_sent_again(browser: Browser, discord: Discord) -> None:
    """A refusal is kept as the answer of its request: the changed form is another one."""
    async with dashboard_over(Shape(), api_url=discord.url) as api, visit(browser, api) as it:
        await it.open("/apps/+new")
        await it.page.get_by_label("Name", exact=True).fill("greeter")
        await it.page.get_by_label("Bot token").fill(NEW_TOKEN)
        await it.click("Test the token")
        add = it.page.get_by_role("button", name="Add greeter")
        await add.wait_for()
        discord.status = 401
        await add.click()
        await expect(it.page.get_by_role("alert")).to_contain_text("401")
        discord.status = 200
        await it.page.get_by_label("Paused").check()
        await it.click("Test the token")
        await add.click()
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("greeter")
        assert [bool(error) for _, done, error in api.recorded if done == "POST /apps"] == [True, False]
        assert it.faults == []


async def test_dead_letters_are_replayed_and_discarded(well: Visit) -> None:
    """The answers of NATS are made up: the API's own tests ask a real one."""
    letters = [
        {
            "number": number, "group": "workers", "kind": "event", "id": f"s:{number}", "type": "MESSAGE_CREATE",
            "tries": 5, "error": "KeyError: 'author'", "at": 1_790_000_000.0, "shard_group": 0, "shard": 3,
        }
        for number in (9, 8, 7)
    ]  # fmt: skip
    asked: list[tuple[str, object]] = []

    async def answer(route: Route) -> None:
        request = route.request
        if request.method == "POST":
            asked.append((request.url.rpartition("/")[2], json.loads(request.post_data or "")))
            await route.fulfill(json={"replayed": 2, "discarded": 3, "left": 0, "not_read": []})
        else:
            await route.fulfill(json={"items": letters, "next": None})

    await well.page.route("**/api/v1/apps/welcomer/dead_letters**", answer)
    await well.page.route("**/api/v1/apps/welcomer/dead_letters/**", answer)
    await well.open("/events?view=dead&app=welcomer")
    for number in (9, 7):
        await well.page.get_by_label(f"Choose dead letter {number}").check()
    await well.click("Replay 2…")
    await well.page.get_by_role("dialog").get_by_role("button", name="Replay").click()
    await well.has("2 letters went back.")
    await well.click("Discard all…")
    dialog = well.page.get_by_role("dialog")
    await dialog.get_by_role("textbox").fill("welcomer")
    await dialog.get_by_role("button", name="Discard").click()
    await well.has("3 letters removed.")
    assert asked == [("replay", {"letters": ["9", "7"]}), ("discard", {"all": True})]


# --- webhooks -------------------------------------------------------------------------------------------------------

HOOK_URL = "https://hooks.example.com/hush/abcd"
HOOK_SECRET = "canary-of-the-signature"


def destination(api: Api) -> Destination:
    return open_destination(api.cluster.view().webhooks["alerts"].record, api.cluster.key)


async def test_a_webhook_is_added_and_changed_and_its_secrets_are_kept_and_never_shown(well: Visit) -> None:
    await well.open("/settings")
    await well.click("Add a webhook…")
    dialog = well.page.get_by_role("dialog")
    await dialog.get_by_label("Name").fill("alerts")
    await dialog.get_by_label("URL").fill("http://hooks.example.com/hush")
    await dialog.get_by_label("Secret of the signature").fill(HOOK_SECRET)
    await dialog.get_by_role("button", name="Add").click()
    url = dialog.get_by_label("URL")
    await expect(url).to_have_accessible_description(re.compile("the URL must begin with https://"))
    await url.fill(HOOK_URL)
    await dialog.get_by_role("button", name="Add").click()
    await well.has("The webhook alerts was added.")

    await well.click("Change webhook alerts")
    # The present values; of what is secret only what the list shows too.
    await expect(dialog.get_by_label("at least")).to_have_value("warning")
    await expect(dialog.get_by_label("nodes: ")).to_be_checked()
    await expect(dialog.get_by_label("leader: ")).not_to_be_checked()
    await expect(url).to_have_value("")
    await expect(url).to_have_accessible_description(re.compile("hooks.example.com and ends in abcd"))
    save = dialog.get_by_role("button", name="Save")
    await expect(save).to_be_disabled()

    # What cannot be is said at its field, and changes nothing.
    for field, wrong, words in (
        ("Words of each notice", "$nope", "there is no placeholder $nope"),
        ("Only these applications", "welcomr", "did you mean welcomer?"),
        ("Secret of the signature", "short", "16 to 256 characters"),
    ):
        await dialog.get_by_label(field).fill(wrong)
        await save.click()
        await expect(dialog.get_by_label(field)).to_have_accessible_description(re.compile(re.escape(words)))
        await expect(dialog.get_by_label(field)).to_have_attribute("aria-invalid", "true")
        await dialog.get_by_label(field).fill("")
    assert [bool(error) for _, _, error in well.api.recorded[-3:]] == [True] * 3
    assert destination(well.api) == Destination(url=HOOK_URL, secret=HOOK_SECRET)

    # Empty fields keep the URL and the secret.
    await dialog.get_by_label("at least").select_option("critical")
    await dialog.get_by_label("leader: ").check()
    await dialog.get_by_label("Only these applications").fill("welcomer, music")
    await save.click()
    await expect(dialog).to_have_count(0)
    row = well.page.get_by_role("row").filter(has_text="alerts")
    await expect(row).to_contain_text("critical")
    await expect(row).to_contain_text("welcomer, music")
    record = well.api.cluster.view().webhooks["alerts"].record
    assert record.events == ("problems", "budget", "nodes", "apps", "losses", "leader")
    assert destination(well.api) == Destination(url=HOOK_URL, secret=HOOK_SECRET)

    # Other ones replace them; the signature can be taken away.
    await well.click("Change webhook alerts")
    await url.fill("https://other.example.com/hush/wxyz")
    await dialog.get_by_label("No signature any more").check()
    await save.click()
    await expect(row).to_contain_text("other.example.com …wxyz")
    assert destination(well.api) == Destination(url="https://other.example.com/hush/wxyz", secret="")
    sent = await well.read()
    assert "alerts" in sent
    assert not [secret for secret in ("/hush", HOOK_SECRET) if secret in sent]


async def test_a_webhook_that_another_admin_changed_meanwhile_is_not_overwritten(well: Visit) -> None:
    assert (await well.api("POST", "/webhooks", {"name": "alerts", "url": HOOK_URL}))[0] == 201
    await well.open("/settings")
    await well.click("Change webhook alerts")
    dialog = well.page.get_by_role("dialog")
    severity = dialog.get_by_label("at least")
    await severity.select_option("critical")
    assert (await well.api("PATCH", "/webhooks/alerts", {"min_severity": "warning"}))[0] == 200
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_contain_text("was changed since it was read")
    assert well.api.cluster.view().webhooks["alerts"].record.min_severity == "warning"
    await dialog.get_by_role("button", name="Show the new values").click()
    await expect(severity).to_have_value("warning")
    await severity.select_option("critical")
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog).to_have_count(0)
    assert well.api.cluster.view().webhooks["alerts"].record.min_severity == "critical"


# --- who is there ---------------------------------------------------------------------------------------------------


async def test_signing_in_with_a_token_and_out_again(browser: Browser) -> None:
    async with dashboard_over(Shape()) as api, visit(browser, api) as it:
        api.identity = ANONYMOUS
        await it.open("/nodes/beta")
        await it.page.get_by_label("API token").fill("swt_wrong")
        await it.click("Sign in")
        await expect(it.page.get_by_role("alert")).not_to_be_empty()
        api.identity = Identity("token", "night", Role.OPERATOR)
        await it.page.get_by_label("API token").fill("swt_right")
        await it.click("Sign in")
        # At the address that was asked for.
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("beta")
        assert await it.page.evaluate("document.cookie + Object.keys(localStorage)") == ""
        api.identity = ANONYMOUS
        await it.has("Your session has ended. Sign in again.")
        assert it.faults == []


async def test_a_viewer_sees_no_action_and_who_is_limited_sees_no_nodes(browser: Browser) -> None:
    async with dashboard_over(Shape(healthy=False)) as api, visit(browser, api) as it:
        api.identity = Identity("user", "80351110224678912", Role.VIEWER, frozenset({"music"}))
        await it.open("/")
        await it.has(re.compile("music: shards? "))
        for name in ("Nodes", "Logs", "Audit", "Settings", "Add an application"):
            assert await it.page.get_by_role("link", name=name, exact=True).count() == 0, name
        assert await it.page.get_by_text("welcomer").count() == 0
        await it.open("/apps/music")
        await it.has("Scaling needs the role operator.")
        assert await it.page.get_by_role("button", name=re.compile("…$")).count() == 0
        assert it.faults == []


async def test_adding_an_application_is_offered_only_to_who_may_add_any(browser: Browser) -> None:
    async with dashboard_over(Shape(apps=(("music", 16),))) as api, visit(browser, api) as it:
        for identity, times in ((Identity("user", "1", Role.ADMIN, frozenset({"music"})), 0), (ADMIN, 1)):
            api.identity = identity
            for path in ("/", "/apps"):
                await it.open(path)
                await it.has("music")
                await expect(it.page.get_by_role("link", name="Add an application")).to_have_count(times)
            await it.open("/apps/+new")
            await expect(it.page.get_by_label("Bot token")).to_have_count(times)
        assert it.faults == []


# --- streams and links ----------------------------------------------------------------------------------------------


async def test_the_log_pauses_and_goes_on(well: Visit) -> None:
    await well.open("/logs")
    lines = well.page.get_by_role("log").get_by_role("listitem")
    await expect(lines).to_have_count(40)
    await well.click("Stop here")
    await expect(well.page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    await expect(lines).to_have_count(40)
    await well.click("Go on")
    await expect(lines).to_have_count(40)
    # Other filters begin again.
    await well.click("Stop here")
    await well.page.get_by_label("at least").select_option("warning")
    await expect(lines).to_have_count(4)
    await expect(well.page.get_by_role("button", name="Stop here")).to_be_visible()


async def test_the_log_says_what_it_skipped_and_that_its_stream_is_open_again(well: Visit) -> None:
    asked = 0

    async def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            await route.abort()
        elif asked == 2:
            body = 'event: skipped\ndata: {"node":"beta","lines":7}\n\n'
            await route.fulfill(content_type="text/event-stream", body=body)
        else:
            await route.continue_()

    await well.page.route("**/api/v1/logs/live**", answer)
    await well.open("/logs")
    await well.has("the node does not answer")
    await well.has("7 lines were skipped on node beta")
    await expect(well.page.get_by_role("alert")).to_have_count(0)


async def test_watching_events_goes_on_when_the_node_ends_the_stream(well: Visit) -> None:
    asked = 0

    async def answer(route: Route) -> None:
        nonlocal asked
        asked += 1
        body = f'event: event\ndata: {{"t":"MESSAGE_{asked}","d":{{}}}}\n\n'
        await route.fulfill(content_type="text/event-stream", body=body)

    await well.page.route("**/api/v1/events?**", answer)
    await well.open("/events?app=welcomer")
    await well.click("Watch")
    log = well.page.get_by_role("log")
    await expect(log).to_contain_text("MESSAGE_2")
    await expect(log).to_contain_text(re.compile("MESSAGE_1.*events in between may be missing.*MESSAGE_2", re.S))
    await well.click("Stop")
    await well.has("Stopped")


async def test_an_event_shows_what_it_changed(well: Visit) -> None:
    channel = {"id": "7", "name": "general", "topic": None, "tags": [1, 2], "meta": {"a": 1, "b": 2}, "cached": True}
    found = [
        {
            "t": "CHANNEL_UPDATE",
            "d": {"id": "7", "name": "lobby <b>", "topic": "hi", "tags": [1, 2], "meta": {"a": 1, "c": 3}},
            "__extra": {"before": channel},
        },
        {"t": "CHANNEL_DELETE", "d": {"id": "7"}, "__extra": {"before": channel}},
        {"t": "STICKER_UPDATE", "d": {"id": "8"}, "__extra": {"before": None, "cache": "behind"}},
        {"t": "EMOJI_UPDATE", "d": {"id": "9"}, "__extra": {"before": None}},
        # As the cache keeps these: a role by itself, a guild without its lists, a user by its id.
        {
            "t": "GUILD_ROLE_UPDATE",
            "d": {"guild_id": "1", "role": {"id": "2", "name": "mod"}},
            "__extra": {"before": {"id": "2", "name": "helper"}},
        },
        {
            "t": "GUILD_UPDATE",
            "d": {"id": "1", "name": "b", "roles": [{"id": "2"}], "emojis": [], "stickers": []},
            "__extra": {"before": {"id": "1", "name": "a"}},
        },
        {
            "t": "VOICE_STATE_UPDATE",
            "d": {"guild_id": "1", "user_id": "3", "mute": True, "member": {"roles": []}},
            "__extra": {"before": {"guild_id": "1", "user_id": "3", "mute": False}},
        },
        {
            "t": "GUILD_MEMBER_UPDATE",
            "d": {"guild_id": "1", "user": {"id": "3", "username": "ada"}, "nick": "x", "roles": ["2"]},
            "__extra": {"before": {"user": {"id": "3"}, "nick": None, "roles": []}},
        },
        {"t": "TYPING_START", "d": {}},
    ]

    async def answer(route: Route) -> None:
        body = "".join(f"event: event\ndata: {json.dumps(event)}\n\n" for event in found)
        await route.fulfill(content_type="text/event-stream", body=body)

    await well.page.route("**/api/v1/events?**", answer)
    await well.open("/events?app=welcomer")
    await well.click("Watch")
    log = well.page.get_by_role("log")
    await log.get_by_text("CHANNEL_UPDATE").first.click()
    expected = [
        ("CHANNEL_UPDATE", ["name general lobby <b>", "topic null hi", "meta.b 2 —", "meta.c — 3"]),
        ("GUILD_ROLE_UPDATE", ["name helper mod"]),
        ("GUILD_UPDATE", ["name a b"]),
        ("VOICE_STATE_UPDATE", ["mute false true"]),
        ("GUILD_MEMBER_UPDATE", ["nick null x", 'roles [] ["2"]']),
    ]
    for kind, rows in expected:
        opened = log.locator("details").filter(has=well.page.get_by_text(kind, exact=True)).first
        if kind != "CHANNEL_UPDATE":
            await opened.get_by_text(kind, exact=True).click()
        shown = opened.get_by_role("region", name="What changed").get_by_role("row")
        await expect(shown).to_have_count(len(rows) + 1)
        texts = [" ".join((await row.inner_text()).split()) for row in (await shown.all())[1:]]
        assert texts == rows
    await log.get_by_text("CHANNEL_DELETE").first.click()
    await expect(log.get_by_text("Before:").first).to_be_visible()
    await log.get_by_text("STICKER_UPDATE").first.click()
    await expect(log.get_by_text("The cache was behind, so").first).to_be_visible()
    await log.get_by_text("EMOJI_UPDATE").first.click()
    await expect(log.get_by_text("It was not in the cache before, so").first).to_be_visible()
    await log.get_by_text("TYPING_START").first.click()


async def test_a_link_leads_to_its_part_of_another_page(sick: Visit) -> None:
    await sick.open("/")
    await sick.click("Consumer groups")
    await expect(sick.page).to_have_url(re.compile("/apps/welcomer#consumers$"))
    heading = sick.page.get_by_role("heading", name="Consumer groups")
    await expect(heading).to_be_in_viewport()
    await sick.page.mouse.wheel(0, -10_000)
    await expect(heading).not_to_be_in_viewport()
    # Also when the page is opened there.
    await sick.open("/apps/welcomer#consumers")
    await expect(heading).to_be_in_viewport()


async def test_an_abandoned_consumer_group_is_removed_when_its_name_is_typed(sick: Visit) -> None:
    asked: list[tuple[str, str]] = []

    async def answer(route: Route) -> None:
        asked.append((route.request.method, urlsplit(route.request.url).path))
        assert route.request.headers["idempotency-key"]
        removed = {"app": "welcomer", "group": "workers", "lag": 12_400, "dead_letters": 3}
        await route.fulfill(json=removed)

    await sick.page.route("**/api/v1/apps/welcomer/consumers/**", answer)
    await sick.open("/apps/welcomer")
    await sick.page.get_by_role("button", name="Remove consumer group workers").click()
    dialog = sick.page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Remove")).to_be_disabled()
    await dialog.get_by_role("textbox").fill("workers")
    await dialog.get_by_role("button", name="Remove").click()
    await expect(sick.page.get_by_text("The group workers was removed, with 3 dead letters.")).to_be_visible()
    assert asked == [("DELETE", "/api/v1/apps/welcomer/consumers/workers")]


async def test_a_node_is_drained_only_when_the_others_are_known(well: Visit) -> None:
    known = asyncio.Event()

    async def answer(route: Route) -> None:
        await known.wait()
        await route.continue_()

    await well.page.route("**/api/v1/nodes?**", answer)
    await well.open("/nodes/beta")
    drain = well.page.get_by_role("button", name="Drain…")
    await expect(drain).to_be_disabled()
    known.set()
    await drain.click()
    await expect(well.page.get_by_role("dialog")).not_to_contain_text("No other node takes shards")


# --- a lost connection ----------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_said_and_recovers_by_itself(well: Visit) -> None:
    await well.open("/nodes")
    await well.has("beta")
    record = await node(well.api, "beta")
    await well.page.context.set_offline(True)
    # The next question notices it, ten seconds later at most.
    await well.page.get_by_text("No connection to this node.").first.wait_for(timeout=40_000)
    # What was read stays; how the cluster is now is not known.
    await expect(well.page.locator(".top")).to_contain_text("not known")
    await expect(well.page.get_by_role("link", name="beta")).to_be_visible()
    await write(well.api, KEYS.node("beta"), msgspec.structs.replace(record, state="cordoned").encode())
    await well.page.context.set_offline(False)
    await expect(well.page.get_by_role("row").filter(has_text="beta")).to_contain_text("cordoned")
    await expect(well.page.get_by_text("No connection to this node.")).to_have_count(0)
    await expect(well.page.locator(".top")).to_contain_text("healthy")


async def test_a_change_whose_answer_was_lost_is_made_once(well: Visit) -> None:
    keys: list[str] = []

    async def lose_the_first_answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            await route.fetch()
            await route.abort()
        else:
            await route.continue_()

    await well.page.route("**/nodes/beta/cordon", lose_the_first_answer)
    await well.open("/nodes/beta")
    await well.click("Cordon…")
    dialog = well.page.get_by_role("dialog")
    await dialog.get_by_role("button", name="Cordon").click()
    await expect(dialog).to_contain_text("Trying again is safe")
    await dialog.get_by_role("button", name="Cordon").click()
    await expect(dialog).to_have_count(0)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert [done for _, done, _ in well.api.recorded] == ["POST /nodes/{node}/cordon"]


async def test_a_change_that_is_still_under_way_keeps_its_key(well: Visit) -> None:
    """What a proxy answers, and that the first request still runs, end nothing: a refusal does."""
    keys: list[str] = []
    answers = [
        (504, None),
        (409, "in-progress"),
        (429, "too-many-requests"),
        (503, "outcome-unknown"),
        (504, "no-answer"),
        (409, "refused"),
    ]

    async def answer(route: Route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) > len(answers):
            await route.continue_()
            return
        status, code = answers[len(keys) - 1]
        await route.fulfill(status=status, json={"code": code, "detail": f"answer {len(keys)}"} if code else {})

    await well.page.route("**/nodes/beta/cordon", answer)
    await well.open("/nodes/beta")
    await well.click("Cordon…")
    dialog = well.page.get_by_role("dialog")
    cordon = dialog.get_by_role("button", name="Cordon")
    for number, (_, code) in enumerate(answers, 1):
        await cordon.click()
        await expect(dialog.get_by_role("alert")).to_contain_text(f"answer {number}" if code else "504")
        safe = code in (None, "in-progress")
        await expect(dialog.get_by_text("Trying again is safe")).to_have_count(1 if safe else 0)
        unknown = code in ("outcome-unknown", "no-answer")
        await expect(dialog.get_by_text("look before you try again")).to_have_count(1 if unknown else 0)
    await cordon.click()
    await expect(dialog).to_have_count(0)
    assert len(set(keys[: len(answers)])) == 1
    assert keys[len(answers)] != keys[0]


# --- keyboard, size -------------------------------------------------------------------------------------------------


async def press_slash(it: Visit) -> None:
    """What is typed next goes to the search."""
    await it.page.keyboard.press("/")
    await expect(it.page.get_by_role("combobox", name="Search")).to_be_focused()


async def test_search_by_keyboard(well: Visit) -> None:
    await well.open("/")
    await press_slash(well)
    await well.page.keyboard.type("welc 7")
    await expect(well.page.get_by_role("option").first).to_contain_text("welcomer shard 7")
    await well.page.keyboard.press("Enter")
    heading = well.page.get_by_role("heading", level=1)
    await expect(heading).to_have_text("Shard 7 of welcomer")
    # A page that is gone to takes the focus, a moment after it shows.
    await expect(heading).to_be_focused()
    await press_slash(well)
    await well.page.keyboard.type("197038439483310086")
    await expect(well.page.get_by_role("option").first).to_contain_text("Guild 197038439483310086")


@pytest_asyncio.fixture(loop_scope="module")
async def large(browser: Browser) -> AsyncIterator[Visit]:
    """500 shards of one application among 50."""
    apps = (("large", 500), *((f"app-{number:02}", 2) for number in range(48)), (LONG, 1))
    async with dashboard_over(Shape(apps=apps)) as api, visit(browser, api) as found:
        yield found
        assert found.faults == []


async def test_500_shards_are_one_stop_of_the_tab_key_and_the_arrows_go_through_them(large: Visit) -> None:
    await large.open("/apps/large")
    cells = large.page.locator(".shards a")
    await expect(cells).to_have_count(500)
    assert await large.page.locator(".shards a[tabindex='0']").count() == 1
    await cells.first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "ArrowUp"):
        await large.page.keyboard.press(key)
    await expect(large.page.locator(".shard-line")).to_contain_text("Shard 2 · live")
    await large.page.keyboard.press("End")
    await expect(large.page.locator(".shard-line")).to_contain_text("Shard 499 · live")
    await large.page.keyboard.press("Enter")
    await expect(large.page.get_by_role("heading", level=1)).to_have_text("Shard 499 of large")
    await large.open("/apps")
    await expect(large.page.get_by_role("row")).to_have_count(51)


async def test_the_menu_of_a_phone(browser: Browser) -> None:
    async with dashboard_over(Shape()) as api, visit(browser, api, viewport=PHONE) as it:
        await it.open("/")
        assert not await it.page.get_by_role("link", name="Nodes", exact=True).is_visible()
        await it.click("Menu")
        await it.page.get_by_role("link", name="Nodes", exact=True).click()
        await expect(it.page.get_by_role("heading", level=1)).to_have_text("Nodes")
        assert it.faults == []
