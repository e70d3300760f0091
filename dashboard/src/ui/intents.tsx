import type { JSX } from "preact";
import { INTENTS } from "../options";

/** Intents as checkboxes, the privileged ones marked. */
export function IntentChecks(props: {
  chosen: readonly string[];
  onChange: (chosen: string[]) => void;
  disabled?: boolean;
}): JSX.Element {
  const chosen = new Set(props.chosen);
  return (
    <div class="checks">
      {INTENTS.map(({ name, brings, isPrivileged }) => (
        <label class="check" key={name}>
          <input
            type="checkbox"
            checked={chosen.has(name)}
            disabled={props.disabled}
            onChange={(event) => {
              const isOn = event.currentTarget.checked;
              props.onChange(INTENTS.map((one) => one.name).filter((one) => (one === name ? isOn : chosen.has(one))));
            }}
          />
          <span>
            <code>{name}</code>
            {isPrivileged && <strong> privileged</strong>}
            <br />
            <span class="muted small">{brings}</span>
          </span>
        </label>
      ))}
    </div>
  );
}
