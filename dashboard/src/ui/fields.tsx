// Fields that several pages have.
import type { JSX } from "preact";
import { place, setQuery } from "../router";
import { Field } from "./parts";

/** A text that a list is filtered by. It is in the page's address. */
export function QueryField({ label, name }: { label: string; name: string }): JSX.Element {
  return (
    <Field label={label}>
      {(attributes) => (
        <input
          {...attributes}
          value={place.value.query.get(name) ?? ""}
          onChange={(event) => setQuery({ [name]: event.currentTarget.value.trim() })}
        />
      )}
    </Field>
  );
}

/** A text that has to be there. */
export function NameField(props: {
  label: string;
  value: string;
  error?: string;
  onChange: (value: string) => void;
}): JSX.Element {
  return (
    <Field label={props.label} error={props.error}>
      {(attributes) => (
        <input
          {...attributes}
          value={props.value}
          required
          autocomplete="off"
          onInput={(event) => props.onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}

export function AppsField(props: { apps: string; error?: string; onChange: (apps: string) => void }): JSX.Element {
  return (
    <Field label="Only these applications" error={props.error}>
      {(attributes) => (
        <input
          {...attributes}
          value={props.apps}
          placeholder="all"
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => props.onChange(event.currentTarget.value)}
        />
      )}
    </Field>
  );
}
