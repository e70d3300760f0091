"""The tracker against a model that knows the truth: no code is ever wrong, and single joins are always attributed."""

from dataclasses import dataclass

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandwich_node.invites.attribution import ByInvite, Reason
from sandwich_node.invites.invite_counts import LAG_S, NEAR_S, SETTLE_S
from sandwich_node.invites.wire import VANITY

from .discord_model import Delays, Model

AGE_S = 600.0
EVENT_MAX_S = SETTLE_S * 0.9


@dataclass(frozen=True)
class Step:
    """One step, `pause` seconds after the one before; `pick` chooses among the existing invites."""

    kind: str
    pause: float
    pick: int
    max_uses: int = 0
    swapped: bool = False


def steps(pauses: st.SearchStrategy[float], kinds: list[str]) -> st.SearchStrategy[list[Step]]:
    one = st.builds(
        Step,
        kind=st.sampled_from(kinds),
        pause=pauses,
        pick=st.integers(0, 9),
        max_uses=st.sampled_from([0, 0, 1, 2, 3]),
        swapped=st.booleans(),
    )
    return st.lists(one, max_size=25)


delays = st.builds(
    Delays,
    event_s=st.floats(0, EVENT_MAX_S),
    read_s=st.floats(0, 0.2),
    answer_s=st.floats(0.2, 0.4),
)
SEEN = ["join", "join", "join", "other", "other", "vanity", "bot", "make", "delete"]
MIXED = [*SEEN, "make_unseen"]


class Story:
    """Plays steps in a model. Invites with a limit are not deleted by hand: that can look like their last use."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.guild = model.add_guild(vanity="disc")
        self.made = 0
        model.run(3.0)

    def play(self, step: Step) -> str | None:
        """Play one step; the user who joined, if one did."""
        model, guild = self.model, self.guild
        model.run(step.pause)
        self._expire()
        codes = list(guild.invites)
        code = codes[step.pick % len(codes)] if codes else None
        match step.kind:
            case "make" | "make_unseen":
                self.made += 1
                model.make(guild, f"i{self.made}", max_uses=step.max_uses, announced=step.kind == "make")
            case "expiring":
                self.made += 1
                model.make(guild, f"i{self.made}", max_uses=step.max_uses, age_s=AGE_S)
            case "delete" if code is not None and guild.invites[code].left == 0:
                model.delete(guild, code)
            case "join" if code is not None:
                return model.join(guild, code, delete_first=step.swapped)
            case "vanity":
                return model.join(guild, VANITY)
            case "bot":
                return model.join(guild, bot=True)
            case "other":
                return model.join(guild)
            case _:
                pass
        return None

    def _expire(self) -> None:
        now = self.model.moment.wall
        for code, invite in list(self.guild.invites.items()):
            if invite.expires_at is not None and invite.expires_at <= now:
                self.model.delete(self.guild, code, announced=False)


@given(
    steps(st.sampled_from([LAG_S + 2, 30.0, AGE_S / 3, AGE_S * 2]), [*SEEN, "expiring"]),
    delays,
)
@settings(max_examples=150, deadline=None)
def test_single_joins_are_always_attributed_correctly(story: list[Step], how_long: Delays) -> None:
    model = Model(delays=how_long)
    playing = Story(model)
    for step in story:
        user = playing.play(step)
        model.run(LAG_S + 2)
        if user is None:
            continue
        truth, attribution = model.truth[user], model.reported[user]
        assert model.code_reported(user) == truth
        if truth is None:
            assert model.reason(user) is (Reason.BOT if step.kind == "bot" else Reason.NO_INVITE)
        else:
            assert isinstance(attribution, ByInvite)
            assert attribution.vanity == (step.kind == "vanity")


@given(
    steps(st.sampled_from([0.0, 0.0, 0.01, 0.05, 0.1, 0.3, 1.0, 4.0]), MIXED),
    delays,
    st.lists(st.booleans(), max_size=20),
)
@settings(max_examples=300, deadline=None)
def test_many_joins_at_once_get_no_wrong_code(story: list[Step], how_long: Delays, failures: list[bool]) -> None:
    model = Model(delays=how_long)
    playing = Story(model)
    fate = iter(failures)
    model.failing = lambda request: (Reason.UNAVAILABLE, 0.0) if next(fate, False) else None
    users = [user for step in story if (user := playing.play(step)) is not None]
    model.run(120.0)
    assert model.wrong() == []
    assert set(users) <= model.reported.keys()


@given(
    steps(st.sampled_from([0.0, 0.01, 0.1, 0.3, 1.0, 3.0, 8.0]), ["join", "join", "other", "vanity", "make"]),
    delays,
    st.floats(0, LAG_S * 0.9),
    st.lists(st.booleans(), max_size=20),
)
@settings(max_examples=200, deadline=None)
def test_counts_that_rise_late_cause_no_wrong_code(
    story: list[Step], how_long: Delays, lag_s: float, failures: list[bool]
) -> None:
    model = Model(delays=how_long)
    playing = Story(model)
    how_long.lag_s = lag_s
    fate = iter(failures)
    model.failing = lambda request: (Reason.UNAVAILABLE, 0.0) if next(fate, False) else None
    for step in story:
        playing.play(step)
    model.run(120.0)
    assert model.wrong() == []


@given(
    steps(st.sampled_from([0.0, 0.05, 0.3, 1.0, 4.0, 15.0]), MIXED),
    delays,
    st.lists(st.integers(0, 25), max_size=3),
    st.booleans(),
    st.floats(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_changes_of_owner_cause_no_wrong_code(
    story: list[Step], how_long: Delays, takeovers: list[int], parts: bool, replayed_s: float
) -> None:
    model = Model(delays=how_long, persists=True)
    playing = Story(model)
    for number, step in enumerate(story):
        playing.play(step)
        if number in takeovers:
            if parts:
                model.tracker.hand_over(model.moment)
                model.run(0.0)
            model.hand_over(replayed_s=0.0 if parts else replayed_s)
    model.run(120.0)
    assert model.wrong() == []


@example(Step("other", 0.0, 0), 0.3)
@given(st.builds(Step, kind=st.just("other"), pause=st.just(0.0), pick=st.just(0)), st.floats(0, NEAR_S * 0.9))
@settings(max_examples=20, deadline=None)
def test_a_last_use_deleted_by_hand_just_before_another_join_is_the_one_known_mistake(
    step: Step, before_s: float
) -> None:
    model = Model(delays=Delays(event_s=0.0))
    playing = Story(model)
    model.make(playing.guild, "last", max_uses=1)
    model.run(5.0)
    model.delete(playing.guild, "last")
    model.run(before_s)
    user = playing.play(step)
    model.run(1.0)
    assert user is not None
    attribution = model.reported[user]
    assert isinstance(attribution, ByInvite)
    assert attribution.last_use
