"""Makes docs/images/dashboard.webp: what `make demo` starts, while a worker is killed and a bot is scaled.

    pip install --target /tmp/pillow pillow
    PYTHONPATH=/tmp/pillow .venv/bin/python dashboard/record.py

Pillow is not among the project's packages: only this picture needs it.
"""

import asyncio
import io
import os
import re
import shutil
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from playwright.async_api import Locator, Page, async_playwright, expect

from sandwich_coordinator.addresses import node_url
from sandwich_coordinator.operations.health import DEVELOPMENT_LABEL
from sandwich_coordinator.status import NodeStatus
from sandwich_node.dev.cluster import DevCluster, dev_cluster
from sandwich_node.dev.demo import demo_bots

OUTPUT = Path(__file__).parents[1] / "docs" / "images" / "dashboard.webp"
SIZE = {"width": 1080, "height": 700}
STRIP = 44
EVERY_S = 0.12
LONGEST_MS = 3000
WAIT_MS = 150_000
TOKEN = re.compile(r"swt_[a-z0-9]+_[\w-]{43}")
FONT = ImageFont.load_default(size=17)


@dataclass
class Film:
    """Frames with what the strip below them says. `speed`: how many times as fast as it was it is shown."""

    page: Page
    text: str = ""
    speed: float = 1.0
    pointer: tuple[float, float] | None = None
    frames: list[tuple[bytes, str, tuple[float, float] | None, float]] = field(default_factory=list)

    async def run(self) -> None:
        """Take frames until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            begun = loop.time()
            shot = await self.page.screenshot()
            await asyncio.sleep(max(0.0, begun + EVERY_S - loop.time()))
            self.add(shot, (loop.time() - begun) / self.speed)

    def add(self, shot: bytes, seconds: float) -> None:
        """A frame for that long. What looks like the last one makes that one longer."""
        if self.frames and self.frames[-1][:3] == (shot, self.text, self.pointer):
            seconds += self.frames.pop()[3]
        self.frames.append((shot, self.text, self.pointer, seconds))

    async def show(self, text: str, seconds: float) -> None:
        """Say something, and leave time to read it."""
        self.text = text
        await asyncio.sleep(seconds)

    async def click(self, target: Locator) -> None:
        """Point at it for a moment, and click."""
        box = await target.bounding_box()
        assert box is not None
        self.pointer = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        await asyncio.sleep(0.7)
        await target.click()
        await asyncio.sleep(0.3)
        self.pointer = None

    def save(self, path: Path) -> None:
        """Write the animation, which is repeated for ever."""
        path.parent.mkdir(exist_ok=True)
        images = [drawn(shot, text, pointer) for shot, text, pointer, _ in self.frames]
        times = [min(LONGEST_MS, round(seconds * 1000)) for *_, seconds in self.frames]
        images[0].save(path, save_all=True, append_images=images[1:], duration=times, loop=0, lossless=True, method=4)
        print(f"{path}: {len(images)} frames, {sum(times) / 1000:.0f} s, {path.stat().st_size / 1000:.0f} kB")  # noqa: T201


def drawn(shot: bytes, text: str, pointer: tuple[float, float] | None) -> Image.Image:
    """A frame with its strip and the mouse pointer, which a screenshot does not have."""
    page = Image.open(io.BytesIO(shot)).convert("RGB")
    image = Image.new("RGB", (page.width, page.height + STRIP), "#1b1e23")
    image.paste(page)
    draw = ImageDraw.Draw(image)
    draw.text((18, page.height + STRIP / 2), text, font=FONT, fill="#f2f2f2", anchor="lm")
    if pointer is not None:
        x, y = pointer
        shape = [(0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12)]
        draw.polygon([(x + dx, y + dy) for dx, dy in shape], fill="black", outline="white")
    return image


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Ask until there is an answer."""
    async with asyncio.timeout(WAIT_MS / 1000):
        while (found := await look()) is None:  # noqa: ASYNC110 (other processes send no event)
            await asyncio.sleep(0.2)
        return found


async def entrance(cluster: DevCluster) -> tuple[str, str] | None:
    """Address of a node and an API token, once all is well."""
    snapshot = await cluster.snapshot()
    states = [entry.record.state for entry in snapshot.view.claims.values()]
    if states != ["live"] * 8 or len(snapshot.view.nodes) < 3:
        return None
    token = next(text for child in cluster.nodes.values() for text in TOKEN.findall(child.log.read_text()))
    return node_url(snapshot.view.nodes["a"].record.address, ""), token


async def worker_of(cluster: DevCluster, app: str) -> tuple[int, str] | None:
    """A worker that runs shards of the application: process id and what it is."""
    for node, answer in (await cluster.snapshot()).answers.items():
        if isinstance(answer, NodeStatus) and (own := [one.shard for one in answer.shards if one.app == app]):
            pid = answer.workers[0].pid
            return pid, f"kill -9 {pid}      # the worker of node {node}, with {len(own)} shards of {app}"
    return None


async def play(film: Film, cluster: DevCluster) -> None:
    """The story."""
    page = film.page
    await film.show("Three nodes, two bots, a simulated Discord. The dashboard is on every node.", 3)
    await film.click(page.get_by_role("link", name="welcomer", exact=True).first)
    pid, command = await until(lambda: worker_of(cluster, "welcomer"))
    await film.show(f"$ {command}", 2.5)
    os.kill(pid, signal.SIGKILL)
    live = page.locator(".figure").filter(has_text="Live shards").locator(".value")
    await expect(live).not_to_have_text("6", timeout=WAIT_MS)
    await expect(live).to_have_text("6", timeout=WAIT_MS)
    await page.evaluate("scrollTo(0, document.body.scrollHeight)")
    await expect(page.get_by_text("worker died").first).to_be_visible(timeout=WAIT_MS)
    await film.show("The worker is back, and the session goes on where it was.", 4)
    await page.evaluate("scrollTo(0, 0)")
    await film.click(page.get_by_role("link", name="Applications", exact=True))
    await film.click(page.get_by_role("link", name="music", exact=True).first)
    scale = page.locator("section", has=page.get_by_role("heading", name="Scale"))
    await scale.scroll_into_view_if_needed()
    await film.show("Scale: what it costs is shown first.", 1)
    await scale.get_by_label("Shard count").fill("4")
    await film.click(scale.get_by_role("button", name="See the cost…"))
    await asyncio.sleep(2.5)
    await film.click(page.get_by_role("dialog").get_by_role("button", name="Scale"))
    await expect(page.get_by_role("dialog")).to_have_count(0, timeout=WAIT_MS)
    await page.evaluate("scrollTo(0, 0)")
    film.speed = 5
    await film.show("The new shards start beside the old ones, which serve until the switch. (5 times as fast)", 1)
    await expect(page.locator(".change")).to_have_count(0, timeout=WAIT_MS)
    film.speed = 1
    await film.show("Done: four shards, without a gap.", 3)


async def main() -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    labels = (f"{DEVELOPMENT_LABEL}=true",)
    async with dev_cluster(demo_bots(), nodes=3, rate=300, labels=labels) as cluster, async_playwright() as playwright:
        url, token = await until(lambda: entrance(cluster))
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = await browser.new_page(viewport=SIZE)  # type: ignore[arg-type]
        await page.add_init_script(f"sessionStorage.setItem('sandwich.token', {token!r})")
        await page.goto(url)
        await expect(page.get_by_role("heading", name="All is well")).to_be_visible(timeout=WAIT_MS)
        film = Film(page)
        filming = asyncio.create_task(film.run())
        try:
            await play(film, cluster)
            if filming.done():
                filming.result()
        finally:
            filming.cancel()
            await asyncio.gather(filming, return_exceptions=True)
            await browser.close()
    film.save(OUTPUT)


if __name__ == "__main__":
    asyncio.run(main())
