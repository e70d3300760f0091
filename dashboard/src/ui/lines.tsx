// Lines that go on. It stays at the end while its reader is there.
import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

export function Lines<T>(props: {
  label: string;
  items: readonly T[];
  keyOf: (item: T) => string;
  render: (item: T) => ComponentChildren;
  empty: string;
}): JSX.Element {
  const frame = useRef<HTMLDivElement>(null);
  const isAtEnd = useRef(true);
  useLayoutEffect(() => {
    const element = frame.current;
    if (element && isAtEnd.current) element.scrollTop = element.scrollHeight;
  }, [props.items]);
  return (
    <div
      class="lines"
      ref={frame}
      tabIndex={0}
      role="log"
      aria-live="off"
      aria-label={props.label}
      onScroll={(event) => {
        const element = event.currentTarget;
        isAtEnd.current = element.scrollHeight - element.scrollTop - element.clientHeight < 24;
      }}
    >
      {props.items.length === 0 ? (
        <p class="empty">{props.empty}</p>
      ) : (
        <ol>
          {props.items.map((item) => (
            <li key={props.keyOf(item)}>{props.render(item)}</li>
          ))}
        </ol>
      )}
    </div>
  );
}
