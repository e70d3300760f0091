// The small parts that pages are made of.
import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useId, useState } from "preact/hooks";
import { ApiError, Unreachable } from "../api/client";
import type { Resource, State as ReadState } from "../state/resource";
import { clock, count, duration, isoTime } from "./format";
import { lookOf, type Look, type Shape } from "./states";

/** Unix seconds, once a second. */
export const now = signal(Date.now() / 1000);
window.setInterval(() => {
  if (!document.hidden) now.value = Date.now() / 1000;
}, 1000);

const SHAPES: Record<Shape, JSX.Element> = {
  disc: <circle cx="6" cy="6" r="4.5" fill="currentColor" />,
  ring: <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" stroke-width="1.5" />,
  target: (
    <>
      <circle cx="6" cy="6" r="4.25" fill="none" stroke="currentColor" stroke-width="1.25" />
      <circle cx="6" cy="6" r="2" fill="currentColor" />
    </>
  ),
  half: (
    <>
      <circle cx="6" cy="6" r="3.75" fill="none" stroke="currentColor" stroke-width="1.5" />
      <path d="M6 2.25a3.75 3.75 0 0 0 0 7.5z" fill="currentColor" />
    </>
  ),
  leaving: <path d="M2 6h6M5.5 3 8.5 6l-3 3M10.5 2.5v7" fill="none" stroke="currentColor" stroke-width="1.5" />,
  bars: <path d="M3 2h2v8H3zM7 2h2v8H7z" fill="currentColor" />,
  triangle: <path d="M6 1.5 11 10.5H1z" fill="currentColor" />,
  square: <path d="M2 2h8v8H2z" fill="currentColor" />,
  cross: <path d="M2.5 2.5l7 7M9.5 2.5l-7 7" fill="none" stroke="currentColor" stroke-width="2" />,
  dash: <path d="M2 5.25h8v1.5H2z" fill="currentColor" />,
};

export function Mark({ look }: { look: Look }): JSX.Element {
  return (
    <svg class={`mark tone-${look.tone}`} viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">
      {SHAPES[look.shape]}
    </svg>
  );
}

export function StateWord({ state, children }: { state: string; children?: ComponentChildren }): JSX.Element {
  return (
    <span class="state">
      <Mark look={lookOf(state)} />
      <span>{children ?? state}</span>
    </span>
  );
}

/** A moment as a distance from now; its exact time on hover. */
export function Ago({ at }: { at: number | null }): JSX.Element {
  if (!at) return <span class="muted">–</span>;
  const away = now.value - at;
  return (
    <time dateTime={isoTime(at)} title={clock(at)}>
      {away < 0 ? `in ${duration(-away)}` : away < 1.5 ? "just now" : `${duration(away)} ago`}
    </time>
  );
}

/** How long something has lasted. */
export function Since({ at }: { at: number | null }): JSX.Element {
  if (!at) return <span class="muted">–</span>;
  return (
    <time dateTime={isoTime(at)} title={`since ${clock(at)}`}>
      {duration(now.value - at)}
    </time>
  );
}

export function Time({ at }: { at: number }): JSX.Element {
  return (
    <time dateTime={isoTime(at)} title={isoTime(at)}>
      {clock(at)}
    </time>
  );
}

export function Section(props: {
  title: string;
  aside?: ComponentChildren;
  children: ComponentChildren;
  id?: string;
}): JSX.Element {
  const id = useId();
  return (
    <section aria-labelledby={id} id={props.id}>
      <header class="section-head">
        <h2 id={id}>{props.title}</h2>
        {props.aside && <div class="aside">{props.aside}</div>}
      </header>
      {props.children}
    </section>
  );
}

export function Empty({ children }: { children: ComponentChildren }): JSX.Element {
  return <p class="empty">{children}</p>;
}

export function errorText(error: unknown): string {
  if (error instanceof ApiError && error.retryAfterS) return `${error.message} (again in ${duration(error.retryAfterS)})`;
  return error instanceof Error ? error.message : String(error);
}

export function ErrorNote({ error }: { error: unknown }): JSX.Element {
  const fields = error instanceof ApiError ? error.fields.filter((field) => field.message !== error.message) : [];
  return (
    <div class="note note-critical" role="alert">
      <Mark look={{ shape: "square", tone: "critical" }} />
      <div>
        {errorText(error)}
        {fields.length > 0 && (
          <ul>
            {fields.map((field) => (
              <li key={field.path}>
                {field.path && <code>{field.path}</code>} {field.message}
              </li>
            ))}
          </ul>
        )}
      </div>
    </div>
  );
}

/** Shows a resource once it is there; before that, why it is not. What was read stays while the node is away. */
export function Loaded<T>(props: {
  from: Resource<T> | ReadState<T>;
  children: (data: T) => ComponentChildren;
  missing?: ComponentChildren;
}): JSX.Element {
  const { data, error } = props.from;
  if (data !== undefined) {
    return (
      <>
        {error && !(error instanceof Unreachable) && <ErrorNote error={error} />}
        {props.children(data)}
      </>
    );
  }
  if (error instanceof ApiError && error.status === 404 && props.missing) return <Empty>{props.missing}</Empty>;
  if (error) return <ErrorNote error={error} />;
  return (
    <p class="empty" aria-busy="true">
      Loading…
    </p>
  );
}

export function Meter(props: {
  value: number;
  max: number;
  label: string;
  kept?: number;
  text?: string;
  wide?: boolean;
}): JSX.Element {
  const max = Math.max(1, props.max);
  const part = (value: number): string => `${Math.max(0, Math.min(100, (value / max) * 100))}%`;
  return (
    <span class={props.wide ? "meter wide" : "meter"}>
      <span
        class="bar"
        role="meter"
        aria-label={props.label}
        aria-valuemin={0}
        aria-valuemax={props.max}
        aria-valuenow={Math.max(0, Math.min(props.max, props.value))}
      >
        <span class="fill" style={{ width: part(props.value) }} />
        {props.kept ? <span class="kept" style={{ left: part(props.kept) }} /> : null}
      </span>
      <span class="meter-text">{props.text ?? `${count(props.value)} / ${count(props.max)}`}</span>
    </span>
  );
}

export function Figure(props: { label: string; children: ComponentChildren; note?: ComponentChildren }): JSX.Element {
  return (
    <div class="figure">
      <dt>{props.label}</dt>
      <dd>
        <span class="value">{props.children}</span>
        {props.note && <span class="muted small">{props.note}</span>}
      </dd>
    </div>
  );
}

export interface Column<T> {
  head: string;
  cell: (row: T) => ComponentChildren;
  /** Numbers are to the right. */
  number?: boolean;
  /** Left out on a narrow screen. */
  wide?: boolean;
  /** Takes the room that is left. */
  grow?: boolean;
}

export function Table<T>(props: {
  label: string;
  columns: Column<T>[];
  rows: readonly T[];
  keyOf: (row: T) => string;
  empty: ComponentChildren;
}): JSX.Element {
  if (props.rows.length === 0) return <Empty>{props.empty}</Empty>;
  const classOf = (column: Column<T>): string =>
    [column.number ? "number" : "", column.wide ? "wide-only" : "", column.grow ? "grow" : ""].filter(Boolean).join(" ");
  return (
    <div class="table-frame" tabIndex={0} role="region" aria-label={props.label}>
      <table>
        <thead>
          <tr>
            {props.columns.map((column) => (
              <th scope="col" class={classOf(column)} key={column.head}>
                {column.head}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.map((row) => (
            <tr key={props.keyOf(row)}>
              {props.columns.map((column) => (
                <td class={classOf(column)} key={column.head}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

export function Field(props: {
  label: string;
  help?: ComponentChildren;
  error?: string;
  /** Of a filter: for a long value. */
  long?: boolean;
  children: (attributes: { id: string; "aria-describedby": string; "aria-invalid": boolean }) => ComponentChildren;
}): JSX.Element {
  const id = useId();
  return (
    <div class={`field${props.error ? " invalid" : ""}${props.long ? " long" : ""}`}>
      <label for={id}>{props.label}</label>
      {props.children({ id, "aria-describedby": `${id}-help`, "aria-invalid": Boolean(props.error) })}
      <div id={`${id}-help`} class="help">
        {props.error && (
          <span class="field-error">
            <Mark look={{ shape: "square", tone: "critical" }} /> {props.error}
          </span>
        )}
        {props.help && <span>{props.help}</span>}
      </div>
    </div>
  );
}

/** Copies a text. Shown only once secrets, too. */
export function Copy({ text, label }: { text: string; label: string }): JSX.Element {
  const [done, setDone] = useState(false);
  return (
    <button
      type="button"
      class="quiet"
      onClick={() => {
        void navigator.clipboard.writeText(text).then(() => {
          setDone(true);
          window.setTimeout(() => setDone(false), 2000);
        });
      }}
    >
      {done ? "Copied" : label}
    </button>
  );
}

export function Check(props: { text: string; isOn: boolean; onChange: (isOn: boolean) => void }): JSX.Element {
  return (
    <label class="check">
      <input type="checkbox" checked={props.isOn} onChange={(event) => props.onChange(event.currentTarget.checked)} />
      <span>{props.text}</span>
    </label>
  );
}
