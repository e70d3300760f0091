"""The screen of `sandwich top`. textual writes only what changed, so that nothing flickers.

A picture is taken every second. While the cluster cannot be asked, the last one stays, with its age and the reason.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import ClassVar

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.css.query import NoMatches
from textual.screen import ModalScreen
from textual.widgets import DataTable, Footer, Input, Label, Static, Tab, Tabs

from sandwich_coordinator.cli.cluster_access import ClusterAccess
from sandwich_coordinator.cli.errors import CommandError
from sandwich_coordinator.cli.progress import progress_lines
from sandwich_coordinator.cli.top.actions import Action, action_for, carry_out
from sandwich_coordinator.cli.top.tables import (
    HEADS,
    TABLES,
    Only,
    Row,
    Table,
    details,
    headline,
    is_degraded,
    table_rows,
)
from sandwich_coordinator.durations import duration
from sandwich_coordinator.operations.errors import OperationError
from sandwich_coordinator.operations.progress import Progress
from sandwich_coordinator.operations.snapshot import Snapshot
from sandwich_coordinator.sealing import SealingError
from sandwich_coordinator.store.base import StoreError
from sandwich_sdk.wire.plain_text import plain_text

EVERY_S = 1.0
PATIENCE_S = 10.0
_TITLES: dict[Table, str] = {
    "problems": "1 Problems",
    "nodes": "2 Nodes",
    "apps": "3 Applications",
    "shards": "4 Shards",
}
_STYLES = {
    "critical": "bold red", "warning": "yellow", "failed": "bold red", "degraded": "bold red", "down": "bold red",
    "silent": "bold red", "live": "green", "ready": "green", "draining": "yellow", "cordoned": "yellow",
}  # fmt: skip

Open = Callable[[], AbstractAsyncContextManager[ClusterAccess]]


class Details(ModalScreen[None]):
    """All that is known about one row."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape,enter,q", "dismiss", "Close")]

    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static("\n".join(self._lines), markup=False)
            yield Label("Esc: back")


class Question(ModalScreen[bool]):
    """Asks before something is done."""

    BINDINGS: ClassVar[list[BindingType]] = [("y", "answer(True)", "Yes"), ("n,escape", "answer(False)", "No")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._text, markup=False)
            yield Label("y: yes   n: no")

    def action_answer(self, value: bool) -> None:
        """The operator decided."""
        self.dismiss(value)


class Typed(ModalScreen[str]):
    """Asks for a word; "" when the operator goes back."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "back", "Back")]

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(classes="box"):
            yield Static(self._text, markup=False)
            yield Input()

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value.strip())

    def action_back(self) -> None:
        """Nothing is to be done."""
        self.dismiss("")


class Top(App[None]):
    """The application. `open_cluster` gives access to the cluster; `clock` is in seconds, for the picture's age."""

    CSS = """
    #head { height: 1; padding: 0 1; }
    #head.bad { color: $error; text-style: bold; }
    #stale { height: auto; padding: 0 1; background: $error; color: $text; display: none; }
    #done { height: 1; padding: 0 1; color: $text-muted; }
    #filter { display: none; }
    DataTable { height: 1fr; }
    ModalScreen { align: center middle; }
    .box { width: auto; max-width: 90%; height: auto; max-height: 80%; padding: 1 2; border: solid $primary;
           background: $surface; overflow: auto; }
    .box Input { width: 40; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(str(number), f"show('{table}')", table, show=False) for number, table in enumerate(TABLES, start=1)),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("escape", "leave", "Back"),
        Binding("d", "act('d')", "Drain"),
        Binding("c", "act('c')", "Cordon"),
        Binding("u", "act('u')", "Uncordon"),
        Binding("m", "act('m')", "Move"),
        Binding("r", "act('r')", "Restart"),
        Binding("q", "quit", "Quit"),
        Binding("ctrl+c", "quit", "Quit", show=False, priority=True),
    ]
    ENABLE_COMMAND_PALETTE = False

    def __init__(self, open_cluster: Open) -> None:
        super().__init__()
        self._open_cluster = open_cluster
        self._cluster: ClusterAccess | None = None
        self._snapshot: Snapshot | None = None
        self._taken_at = 0.0
        self._failure = ""
        self._table: Table = "problems"
        self._only = Only()
        self._text = ""
        self._rows: dict[str, Row] = {}
        self.refusal: CommandError | None = None
        """Why the cluster could not be opened, or who asks has no access; None: it was not so."""

    def compose(self) -> ComposeResult:
        yield Static("", id="head", markup=False)
        yield Static("", id="stale", markup=False)
        yield Tabs(*(Tab(title, id=table) for table, title in _TITLES.items()))
        yield Input(placeholder="filter", id="filter")
        yield DataTable(cursor_type="row", zebra_stripes=True)
        yield Static("", id="done", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """The first table, and the pictures."""
        self._set_columns()
        self.query_one(DataTable).focus()
        self._follow()

    # --- pictures ---------------------------------------------------------------------------------------------------

    @work(exclusive=True, group="pictures")
    async def _follow(self) -> None:
        try:
            await self._take_pictures()
        except CommandError as error:
            self.refusal = error
            self.exit()

    async def _take_pictures(self) -> None:
        clock = asyncio.get_running_loop().time
        async with self._open_cluster() as cluster:
            self._cluster = cluster
            while True:
                try:
                    async with asyncio.timeout(PATIENCE_S):
                        self._snapshot = await cluster.snapshot()
                    self._taken_at, self._failure = clock(), ""
                except TimeoutError:
                    self._failure = f"no answer in {PATIENCE_S:g} s"
                except (OperationError, StoreError) as error:
                    self._failure = plain_text(error)
                # While the screen is being made or taken away there is nothing to show it on.
                with suppress(NoMatches):
                    self._show(clock())
                await asyncio.sleep(EVERY_S)

    def _show(self, now: float) -> None:
        stale = self.query_one("#stale", Static)
        stale.display = bool(self._failure)
        if self._failure:
            age = f"; this is how it was {duration(now - self._taken_at)} ago" if self._snapshot is not None else ""
            stale.update(f"the cluster cannot be asked ({self._failure}){age}")
        if self._snapshot is None:
            return
        head = self.query_one("#head", Static)
        head.update(headline(self._snapshot))
        head.set_class(is_degraded(self._snapshot), "bad")
        self._fill()

    def _set_columns(self) -> None:
        table = self.query_one(DataTable)
        table.clear(columns=True)
        for number, name in enumerate(HEADS[self._table]):
            table.add_column(name, key=str(number))
        self._rows = {}

    def _fill(self) -> None:
        """Bring the table in line with the picture, cell by cell: the cursor and the scroll position stay."""
        if self._snapshot is None:
            return
        table = self.query_one(DataTable)
        wanted = {row.key: row for row in table_rows(self._snapshot, self._table, self._only, self._text)}
        if list(wanted) != list(self._rows):
            at = self._row_key()
            table.clear()
            for row in wanted.values():
                table.add_row(*map(_painted, row.cells), key=row.key)
            if at in wanted:
                table.move_cursor(row=table.get_row_index(at))
        else:
            for key, row in wanted.items():
                for number, (cell, before) in enumerate(zip(row.cells, self._rows[key].cells, strict=True)):
                    if cell != before:
                        table.update_cell(key, str(number), _painted(cell), update_width=True)
        self._rows = wanted

    def _row_key(self) -> str:
        table = self.query_one(DataTable)
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value)

    # --- keys -------------------------------------------------------------------------------------------------------

    @on(Tabs.TabActivated)
    def _tab(self, event: Tabs.TabActivated) -> None:
        table = next(name for name in TABLES if name == event.tab.id)
        if table != self._table:
            self._table = table
            self._set_columns()
            self._fill()

    def action_show(self, table: str) -> None:
        """Change to a table."""
        self._only = Only()
        self.query_one(Tabs).active = table
        self.query_one(DataTable).focus()
        self._fill()

    def action_filter(self) -> None:
        """Type what rows must have."""
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    @on(Input.Changed, "#filter")
    def _filtered(self, event: Input.Changed) -> None:
        self._text = event.value.strip()
        self._fill()

    @on(Input.Submitted, "#filter")
    def _chosen(self, _: Input.Submitted) -> None:
        self.query_one(DataTable).focus()

    def action_leave(self) -> None:
        """Out of the filter, then out of the shards of one node or application."""
        field = self.query_one("#filter", Input)
        if field.display:
            field.value, field.display, self._text = "", False, ""
        elif self._only != Only():
            table = "nodes" if self._only.node else "apps"
            self.action_show(table)
        self.query_one(DataTable).focus()
        self._fill()

    @on(DataTable.RowSelected)
    def _selected(self, event: DataTable.RowSelected) -> None:
        row = self._rows.get(str(event.row_key.value))
        if row is None:
            return
        if self._table in ("nodes", "apps"):
            self._only = Only(node=row.key) if self._table == "nodes" else Only(app=row.key)
            self.query_one(Tabs).active = "shards"
            return
        self.push_screen(Details(details(row)))

    @work(group="actions")
    async def action_act(self, key: str) -> None:
        """Carry out what a key means for the row under the cursor, after a question where it is needed."""
        row = self._rows.get(self._row_key())
        action = action_for(self._table, key, row) if row is not None else None
        if action is None or self._cluster is None:
            return
        typed = ""
        if action.question and not await self.push_screen_wait(Question(action.question)):
            return
        if action.asks and not (typed := await self.push_screen_wait(Typed(action.asks))):
            return
        await self._carry_out(self._cluster, action, typed)

    async def _carry_out(self, cluster: ClusterAccess, action: Action, typed: str) -> None:
        done = self.query_one("#done", Static)

        def report(event: Progress) -> None:
            for line in progress_lines(event):
                done.update(plain_text(line))

        done.update(f"{action.verb} ...")
        try:
            await carry_out(cluster, action, typed, report)
        except (CommandError, OperationError, StoreError, SealingError) as error:
            done.update(plain_text(error))


def _painted(cell: str) -> Text:
    return Text(cell, style=_STYLES.get(cell, ""))
