// A page: its heading, which takes the focus when the address changes, and what can be done.
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

let isFirst = true;

export function Page(props: {
  title: ComponentChildren;
  /** For the browser's tab. */
  name: string;
  sub?: ComponentChildren;
  actions?: ComponentChildren;
  children: ComponentChildren;
}): JSX.Element {
  const heading = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    if (!isFirst) heading.current?.focus({ preventScroll: true });
    isFirst = false;
  }, []);
  useEffect(() => {
    document.title = `${props.name} · Sandwich`;
  }, [props.name]);
  return (
    <>
      <header class="page-head">
        <h1 ref={heading} tabIndex={-1}>
          {props.title}
        </h1>
        {props.sub && <span class="sub">{props.sub}</span>}
        {props.actions && <div class="actions">{props.actions}</div>}
      </header>
      {props.children}
    </>
  );
}
