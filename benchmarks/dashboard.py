"""`python -m benchmarks.dashboard`: what the dashboard costs a browser, the network and a node. Needs chromium.

A made-up cluster of 50 applications and 500 shards, of which `CHANGED` change their state every `CHANGE_EVERY_S`
seconds, in a process of its own; and three real nodes with traffic. All in headless chromium on the same machine.

    first page       bytes on the wire until the overview is shown, and the time until nothing on it is loading
    frames           callbacks of requestAnimationFrame, which come 60 times a second at most
    cost to a node   CPU time of the process that serves, with ten pages open less without one
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
from playwright.async_api import Browser, Page, async_playwright

from benchmarks.processes import cpu_s, token, until
from sandwich_coordinator.addresses import node_url
from sandwich_coordinator.store.base import Put
from sandwich_coordinator.types import ClaimRecord, ShardState
from sandwich_node.dev.cluster import DevBot, DevCluster, dev_cluster
from sandwich_node.dev.embedded import die_with_parent
from tests.dashboard.conftest import CHROMIUM, DESKTOP
from tests.e2e.test_live import TOKEN
from tests.support.api import KEYS, Api, StoredFacts
from tests.support.dashboard_cluster import Shape, dashboard_over

LARGE = "large"
SHARDS = 500
SHAPE = Shape(apps=((LARGE, SHARDS - 98), *((f"app-{number:02}", 2) for number in range(49))))
CHANGED = 10
CHANGE_EVERY_S = 0.5
PAGES = 10
LOADS = 10
SETTLE_S = 5.0
BOT = DevBot(app="welcomer", token=token(1), guilds=240, shards=24, recommended=24)
RATE = 200

IS_LOADED = "document.querySelector('dl.figures') && !document.querySelector('[aria-busy=true]')"
WHEN_LOADED = f"""
  const look = () => {{
    if ({IS_LOADED}) window.loadedAt = performance.now();
    else requestAnimationFrame(look);
  }};
  look();
"""
BYTES = """[...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
  .filter((one) => !/^[/](api|auth)[/]/.test(new URL(one.name).pathname))
  .reduce((sum, one) => sum + one.transferSize, 0)"""
"""Of the page and its files. What the API answers belongs to the cluster that is shown."""
FRAMES = """(seconds) => new Promise((done) => {
  let changes = 0;
  const observer = new MutationObserver((found) => { changes += found.length; });
  const all = { subtree: true, childList: true, characterData: true, attributes: true };
  observer.observe(document.querySelector("main"), all);
  const gaps = [];
  const end = performance.now() + seconds * 1000;
  let last = performance.now();
  const step = (now) => {
    gaps.push(now - last);
    last = now;
    if (now < end) requestAnimationFrame(step);
    else { observer.disconnect(); done({ gaps, changes }); }
  };
  requestAnimationFrame(step);
})"""


# --- the clusters -----------------------------------------------------------------------------------------------------


async def serve_large() -> None:
    """Serve the made-up cluster until the process is ended; its address is the first line of the output."""
    async with dashboard_over(SHAPE) as api:
        print(api.url, flush=True)
        first = 0
        while True:
            await asyncio.sleep(CHANGE_EVERY_S)
            await change_shards(api, [(first + number) % (SHARDS - 98) for number in range(CHANGED)])
            first += CHANGED


async def change_shards(api: Api, numbers: list[int]) -> None:
    """Live shards of the largest application resume, and resuming ones are live."""
    writes = []
    for number in numbers:
        item = await api.store.get(KEYS.claim(LARGE, 0, number))
        assert item is not None
        claim = msgspec.json.decode(item.value, type=ClaimRecord)
        state: ShardState = "resuming" if claim.state == "live" else "live"
        changed = msgspec.structs.replace(claim, state=state)
        writes.append(Put(KEYS.claim(LARGE, 0, number), changed.encode(), item.lease))
    await api.store.txn((), writes)
    assert isinstance(api.cluster.facts, StoredFacts)
    await api.cluster.facts.refresh()


@asynccontextmanager
async def large_cluster() -> AsyncIterator[tuple[str, int]]:
    """Address and process id of `serve_large` in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "benchmarks.dashboard", "--serve"),
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=die_with_parent,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(60):
            line = await process.stdout.readline()
        yield line.decode().strip(), process.pid
    finally:
        process.kill()
        await process.wait()


async def way_in(cluster: DevCluster) -> tuple[str, str] | None:
    """Address of node a and an API token, once all shards are live."""
    snapshot = await cluster.snapshot()
    claims = [entry.record.state for entry in snapshot.view.claims.values()]
    if claims != ["live"] * (BOT.shards or 0):
        return None
    printed = [text for child in cluster.nodes.values() for text in TOKEN.findall(child.log.read_text())]
    return node_url(snapshot.view.nodes["a"].record.address, ""), printed[0]


# --- the pages --------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def a_page(browser: Browser, url: str, api_token: str = "", *, path: str = "/") -> AsyncIterator[Page]:
    """A page in a browser context of its own, opened and loaded."""
    context = await browser.new_context(viewport=DESKTOP)
    try:
        page = await context.new_page()
        if api_token:
            await page.add_init_script(f"sessionStorage.setItem('sandwich.token', {api_token!r})")
        await page.add_init_script(WHEN_LOADED)
        await page.goto(url + path)
        await until(lambda: page.evaluate("window.loadedAt !== undefined"))
        yield page
    finally:
        await context.close()


async def first_page(browser: Browser, url: str) -> tuple[int, list[float]]:
    """Bytes of the first page on the wire, and the milliseconds of each load with an empty cache."""
    times: list[float] = []
    size = 0
    for _ in range(LOADS):
        async with a_page(browser, url) as page:
            times.append(await page.evaluate("window.loadedAt"))
            size = await page.evaluate(BYTES)
    return size, times


async def frames(browser: Browser, url: str, path: str, seconds: float) -> dict[str, Any]:
    """Frames a second, the longest time without one in ms, and how often the page changed meanwhile."""
    async with a_page(browser, url, path=path) as page:
        found = await page.evaluate(FRAMES, seconds)
    gaps = found["gaps"]
    return {"fps": len(gaps) / (sum(gaps) / 1000), "longest": max(gaps), "changes": found["changes"]}


async def share_of_core(pid: int, seconds: float) -> float:
    """Percent of a core that a process uses."""
    before, loop = cpu_s(pid), asyncio.get_running_loop()
    begun = loop.time()
    await asyncio.sleep(seconds)
    return (cpu_s(pid) - before) / (loop.time() - begun) * 100


async def cost_of_pages(browser: Browser, url: str, pid: int, seconds: float, api_token: str = "") -> str:
    """Percent of a core of the process that serves: what ten open overviews add (from what to what)."""
    await asyncio.sleep(SETTLE_S)
    alone = await share_of_core(pid, seconds)
    async with AsyncExitStack() as stack:
        for _ in range(PAGES):
            await stack.enter_async_context(a_page(browser, url, api_token))
        await asyncio.sleep(SETTLE_S)
        both = await share_of_core(pid, seconds)
    return f"{both - alone:.1f} ({alone:.1f} to {both:.1f})"


# --- the table --------------------------------------------------------------------------------------------------------


async def measure_large(browser: Browser, seconds: float) -> None:
    """Print what is measured with the made-up cluster."""
    async with large_cluster() as (url, pid):
        size, times = await first_page(browser, url)
        print(f"| first page, compressed | {size / 1000:.0f} kB | 300 kB |")
        spread = f"{statistics.median(times):.0f} ms ({min(times):.0f} to {max(times):.0f})"
        print(f"| until it is usable, {LOADS} loads with an empty cache | {spread} | 1,000 ms |")
        for name, path in (("overview", "/"), ("grid of the largest application", f"/apps/{LARGE}")):
            found = await frames(browser, url, path, seconds)
            figures = f"{found['fps']:.0f}; longest gap {found['longest']:.0f} ms"
            print(f"| frames a second, {name} ({found['changes']} changes of the page) | {figures} | 30 |")
        cost = await cost_of_pages(browser, url, pid, seconds)
        print(f"| {PAGES} overviews of it, % of a core | {cost} | |")


async def measure_real(browser: Browser, seconds: float) -> None:
    """Print what is measured with real nodes."""
    async with dev_cluster((BOT,), nodes=3, rate=RATE) as cluster:
        await until(lambda: way_in(cluster))
        found = await way_in(cluster)
        assert found is not None
        url, api_token = found
        cost = await cost_of_pages(browser, url, cluster.nodes["a"].process.pid, seconds, api_token)
        of = f"3 real nodes, {BOT.shards} shards, {RATE} events/s"
        print(f"| {PAGES} overviews of {of}, % of a core of the node | {cost} | 3 |")


async def main(seconds: float) -> None:
    changed = f"{CHANGED / CHANGE_EVERY_S:.0f} of {SHARDS} shards change a second"
    print(f"| {changed}, {len(SHAPE.apps)} applications | figure | bar |\n|---|---|---|")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        await measure_large(browser, seconds)
        await measure_real(browser, seconds)
        await browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dashboard", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of each measurement")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve_large())
    elif CHROMIUM is None:
        sys.exit("this needs chromium")
    else:
        asyncio.run(main(arguments.seconds))
