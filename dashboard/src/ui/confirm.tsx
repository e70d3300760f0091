// Questions before a change, with what it costs; and short reports of what was done.
import { signal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef, useState } from "preact/hooks";
import { Attempts, ifUnknown } from "../api/client";
import { Check, ErrorNote, Mark } from "./parts";

export interface Costs {
  shown: ComponentChildren;
  /** Why no node has room for some of the new shards: it has to be accepted before the button works. */
  withoutRoom?: string;
}

export interface Question {
  title: string;
  /** What happens. */
  body: ComponentChildren;
  /** The word on the button. */
  verb: string;
  dangerous?: boolean;
  /** Has to be typed before the button works. */
  typed?: string;
  /** Works out what it costs; shown before the button works. */
  cost?: () => Promise<Costs>;
  /** Does it, at most once for a key. The text is shown as a report. */
  run: (key: string) => Promise<string | void>;
}

const question = signal<Question | null>(null);
const reports = signal<{ id: number; text: string }[]>([]);
let counter = 0;

export function confirm(wanted: Question): void {
  question.value = wanted;
}

export function report(text: string): void {
  const id = ++counter;
  reports.value = [...reports.value.slice(-3), { id, text }];
  window.setTimeout(() => dismiss(id), 8000);
}

function dismiss(id: number): void {
  reports.value = reports.value.filter((one) => one.id !== id);
}

export function Reports(): JSX.Element {
  return (
    <div class="reports" role="status" aria-live="polite">
      {reports.value.map((one) => (
        <div class="report" key={one.id}>
          <span>{one.text}</span>
          <button type="button" class="quiet" aria-label="Dismiss" onClick={() => dismiss(one.id)}>
            ✕
          </button>
        </div>
      ))}
    </div>
  );
}

export function Dialog(props: {
  title: string;
  onClose: () => void;
  children: ComponentChildren;
  wide?: boolean;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const element = ref.current;
    const before = document.activeElement;
    element?.showModal();
    return () => {
      element?.close();
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={ref}
      class={props.wide ? "wide" : ""}
      aria-labelledby={id}
      onCancel={(event) => {
        event.preventDefault();
        props.onClose();
      }}
    >
      <h2 id={id}>{props.title}</h2>
      {props.children}
    </dialog>
  );
}

export function Confirmation(): JSX.Element | null {
  const wanted = question.value;
  return wanted && <Asking wanted={wanted} />;
}

function Asking({ wanted }: { wanted: Question }): JSX.Element {
  const [typed, setTyped] = useState("");
  const [working, setWorking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const [costs, setCosts] = useState<Costs | null>(null);
  const [isAccepted, setAccepted] = useState(false);
  const [attempts] = useState(() => new Attempts());
  const id = useId();
  const close = (): void => {
    if (!working) question.value = null;
  };
  useEffect(() => {
    let left = false;
    wanted
      .cost?.()
      .then((found) => {
        if (!left) setCosts(found);
      })
      .catch((found: unknown) => !left && setError(found));
    return () => {
      left = true;
    };
  }, [wanted]);
  const isKnown = !wanted.cost || costs !== null;
  const isAgreed = (!costs?.withoutRoom || isAccepted) && (!wanted.typed || typed === wanted.typed);
  const allowed = isKnown && isAgreed && !working;
  const run = async (event: Event): Promise<void> => {
    event.preventDefault();
    if (!allowed) return;
    setWorking(true);
    setError(null);
    try {
      const text = await attempts.send("", wanted.run);
      question.value = null;
      if (text) report(text);
    } catch (found) {
      setError(found);
      setWorking(false);
    }
  };
  return (
    <Dialog title={wanted.title} onClose={close}>
      <form onSubmit={(event) => void run(event)}>
        <div class="prose">{wanted.body}</div>
        {wanted.cost && (costs !== null || error === null) && (
          <div class="cost" aria-live="polite">
            {costs?.shown ?? "Working out what it costs…"}
          </div>
        )}
        {costs?.withoutRoom && <WithoutRoom why={costs.withoutRoom} isAccepted={isAccepted} onChange={setAccepted} />}
        {wanted.typed && (
          <div class="field">
            <label for={id}>
              Type <code>{wanted.typed}</code> to confirm
            </label>
            <input
              id={id}
              value={typed}
              autocomplete="off"
              spellcheck={false}
              autofocus
              onInput={(event) => setTyped(event.currentTarget.value)}
            />
          </div>
        )}
        {error !== null && <ErrorNote error={error} />}
        {isKnown && ifUnknown(error) && <p class="small">{ifUnknown(error)}</p>}
        <div class="buttons">
          <button type="button" onClick={close} disabled={working}>
            Cancel
          </button>
          <button type="submit" class={wanted.dangerous ? "danger" : "primary"} disabled={!allowed}>
            {wanted.dangerous && <Mark look={{ shape: "triangle", tone: "critical" }} />}
            {working ? "Working…" : wanted.verb}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** What would wait for room is begun only by who has said so. */
export function WithoutRoom(props: { why: string; isAccepted: boolean; onChange: (isAccepted: boolean) => void }): JSX.Element {
  return (
    <>
      <p class="note note-warning">
        <Mark look={{ shape: "triangle", tone: "warning" }} />
        <span>{props.why}</span>
      </p>
      <Check text="Begin all the same" isOn={props.isAccepted} onChange={props.onChange} />
    </>
  );
}
