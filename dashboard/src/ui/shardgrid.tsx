// Shards as a grid of marks. One tab stop; the arrow keys go through it, and a line below says what has the focus.
import type { JSX } from "preact";
import { memo } from "preact/compat";
import { useMemo, useRef, useState } from "preact/hooks";
import type { Shard } from "../api/types";
import { href } from "../router";
import { count, duration, milliseconds, plural, rate } from "./format";
import { Mark, now, StateWord } from "./parts";
import { lookOf, MEANING } from "./states";

interface CellProps {
  app: string;
  group: number;
  shard: number;
  state: string;
  isPinned: boolean;
  index: number;
  isTabStop: boolean;
  withApp: boolean;
}

const Cell = memo(function Cell(props: CellProps): JSX.Element {
  return (
    <li>
      <a
        href={href.shard(props.app, props.group, props.shard)}
        class={`tone-${lookOf(props.state).tone}`}
        tabIndex={props.isTabStop ? 0 : -1}
        data-index={props.index}
        aria-label={`Shard ${props.shard}${props.withApp ? ` of ${props.app}` : ""}: ${props.state}${props.isPinned ? ", pinned" : ""}`}
      >
        <Mark look={lookOf(props.state)} />
      </a>
    </li>
  );
});

/** `withApp`: they are of several applications. */
export function ShardGrid(props: { shards: readonly Shard[]; label: string; withApp?: boolean }): JSX.Element {
  const { shards, label, withApp = false } = props;
  const [at, setAt] = useState(0);
  const [shown, setShown] = useState<number | null>(null);
  const [wanted, setWanted] = useState<string | null>(null);
  const list = useRef<HTMLUListElement>(null);
  const states = useMemo(() => {
    const found = new Map<string, number>();
    for (const shard of shards) found.set(shard.state, (found.get(shard.state) ?? 0) + 1);
    return [...found].sort(([, a], [, b]) => b - a);
  }, [shards]);
  const listed = wanted && states.some(([state]) => state === wanted) ? shards.filter((one) => one.state === wanted) : shards;
  const stop = Math.min(at, listed.length - 1);
  const focus = (index: number): void => {
    const next = Math.max(0, Math.min(listed.length - 1, index));
    setAt(next);
    list.current?.querySelector<HTMLElement>(`[data-index="${next}"]`)?.focus();
  };
  const perRow = (): number => {
    const cells = [...(list.current?.children ?? [])] as HTMLElement[];
    const top = cells[0]?.offsetTop;
    const broken = cells.findIndex((cell) => cell.offsetTop !== top);
    return broken < 1 ? cells.length : broken;
  };
  const indexOf = (event: Event): number | null => {
    const cell = (event.target as Element).closest("[data-index]");
    return cell ? Number(cell.getAttribute("data-index")) : null;
  };
  const one = shown === null ? undefined : listed[shown];
  return (
    <div>
      <div class="legend" role="group" aria-label="States: choose one to see only its shards">
        {states.map(([state, many]) => (
          <button
            type="button"
            key={state}
            aria-pressed={wanted === state}
            title={MEANING[state]}
            onClick={() => setWanted(wanted === state ? null : state)}
          >
            <StateWord state={state}>
              {count(many)} {state}
            </StateWord>
          </button>
        ))}
      </div>
      <ul
        class="shards"
        ref={list}
        aria-label={label}
        onMouseOver={(event) => setShown(indexOf(event))}
        onMouseLeave={() => setShown(null)}
        onFocusIn={(event) => {
          const index = indexOf(event);
          setShown(index);
          if (index !== null) setAt(index);
        }}
        onFocusOut={() => setShown(null)}
        onKeyDown={(event) => {
          const index = indexOf(event) ?? 0;
          const moves: Record<string, () => number> = {
            ArrowRight: () => index + 1,
            ArrowLeft: () => index - 1,
            ArrowDown: () => index + perRow(),
            ArrowUp: () => index - perRow(),
            Home: () => 0,
            End: () => listed.length - 1,
          };
          const move = moves[event.key];
          if (!move) return;
          event.preventDefault();
          focus(move());
        }}
      >
        {listed.map((shard, index) => (
          <Cell
            key={`${shard.app}/${shard.group}/${shard.shard}`}
            app={shard.app}
            group={shard.group}
            shard={shard.shard}
            state={shard.state}
            isPinned={shard.pinned_to !== null}
            index={index}
            isTabStop={index === stop}
            withApp={withApp}
          />
        ))}
      </ul>
      <p class="shard-line small">
        {one ? <ShardLine shard={one} withApp={withApp} /> : <span class="muted">{plural(listed.length, "shard")}. Point at one, or use the arrow keys.</span>}
      </p>
    </div>
  );
}

function ShardLine({ shard, withApp }: { shard: Shard; withApp: boolean }): JSX.Element {
  return (
    <>
      <strong>
        Shard {shard.shard}
        {withApp && ` of ${shard.app}`}
      </strong>{" "}
      · {shard.state}
      {shard.since !== null && ` for ${duration(now.value - shard.since)}`}
      {shard.node !== null && ` · ${shard.node}, worker ${shard.worker}`} · {count(shard.guilds)} guilds ·{" "}
      {milliseconds(shard.latency_ms)} · {rate(shard.events_per_s)} events/s
      {shard.pinned_to !== null && ` · pinned to ${shard.pinned_to}`}
      {shard.reason && ` · ${shard.reason}`}
    </>
  );
}
