"""What holds for every page: no fault, nothing from elsewhere, accessible, in both widths and both colours."""

from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, expect

from sandwich_coordinator.access.roles import ANONYMOUS
from tests.dashboard.conftest import DESKTOP, PHONE, visit
from tests.support.dashboard_cluster import Shape, dashboard_over

pytestmark = pytest.mark.asyncio(loop_scope="module")
AXE = Path(__file__).parents[2] / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
PAGES = (
    "/",
    "/apps",
    "/apps/+new",
    "/apps/welcomer",
    "/apps/welcomer/settings",
    "/nodes",
    "/nodes/alpha",
    "/nodes/gamma",
    "/shards",
    "/shards/welcomer/0/7",
    "/cache",
    "/cache?view=user",
    "/events",
    "/logs",
    "/audit",
    "/settings",
    "/apps/no-such-application",
    "/apps/a/b/c",
)


@pytest.mark.parametrize(
    "options",
    [
        {"viewport": DESKTOP, "color_scheme": "light"},
        {"viewport": PHONE, "color_scheme": "dark"},
    ],
    ids=["desktop-light", "phone-dark"],
)
async def test_no_page_has_a_fault_and_axe_finds_nothing_serious(browser: Browser, options: dict[str, Any]) -> None:
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm ci in dashboard/")
    found: list[str] = []
    async with dashboard_over(Shape(healthy=False)) as api, visit(browser, api, **options) as it:
        await it.page.add_init_script(AXE.read_text())
        for path in PAGES:
            await it.open(path)
            # Not wait_for_function: it compiles its text in the page, which the policy refuses.
            await expect(it.page.locator("[aria-busy=true]")).to_have_count(0)
            for violation in await it.page.evaluate("axe.run().then((all) => all.violations)"):
                if violation["impact"] in ("serious", "critical"):
                    found += [f"{path}: {violation['id']}: {node['html'][:200]}" for node in violation["nodes"]]
            # Nothing wider than the screen but what scrolls by itself.
            wide = await it.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found.append(f"{path}: {wide} pixels wider than the screen")
        assert it.faults == []
    assert found == []


async def test_the_page_to_sign_in_has_no_fault_either(browser: Browser) -> None:
    if not AXE.is_file():
        pytest.skip("needs axe-core: npm ci in dashboard/")
    async with dashboard_over(Shape()) as api, visit(browser, api) as it:
        api.identity = ANONYMOUS
        await it.page.add_init_script(AXE.read_text())
        await it.open("/nodes")
        violations = await it.page.evaluate("axe.run().then((all) => all.violations)")
        assert [one["id"] for one in violations if one["impact"] in ("serious", "critical")] == []
        assert it.faults == []
