import type { JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { place } from "../router";
import { askWhoIsThere, hasEnded, meError, signInWithToken } from "../state/session";
import { ErrorNote, Field } from "../ui/parts";

/** Whether this cluster lets people sign in with Discord. */
async function hasDiscord(): Promise<boolean> {
  try {
    const response = await fetch("/auth/methods");
    return response.ok && ((await response.json()) as { discord: boolean }).discord;
  } catch {
    return false;
  }
}

export function SignInPage(): JSX.Element {
  const [text, setText] = useState("");
  const [error, setError] = useState<unknown>(null);
  const [isWorking, setWorking] = useState(false);
  const [discord, setDiscord] = useState(false);
  useEffect(() => {
    document.title = "Sign in · Sandwich";
    void hasDiscord().then(setDiscord);
  }, []);
  const submit = async (event: Event): Promise<void> => {
    event.preventDefault();
    setWorking(true);
    setError(null);
    try {
      await signInWithToken(text.trim());
    } catch (found) {
      setError(found);
      setWorking(false);
    }
  };
  const next = encodeURIComponent(place.value.path === "/sign-in" ? "/" : place.value.path);
  return (
    <main class="sign-in">
      <h1>Sandwich</h1>
      <p class="muted">{hasEnded.value ? "Your session has ended. Sign in again." : "Sign in to this cluster."}</p>
      {meError.value && (
        <>
          <ErrorNote error={new Error(`This node did not say who you are: ${meError.value}`)} />
          <button type="button" onClick={() => void askWhoIsThere()}>
            Try again
          </button>
        </>
      )}
      {discord && (
        <p>
          <a class="button wide" href={`/auth/login?next=${next}`}>
            Sign in with Discord
          </a>
        </p>
      )}
      <form onSubmit={(event) => void submit(event)}>
        <Field
          label="API token"
          help={
            <>
              From <code>sandwich token create</code>, or the one that a node printed at its first start. This tab keeps it
              until it is closed.
            </>
          }
        >
          {(attributes) => (
            <input
              {...attributes}
              type="password"
              name="token"
              autocomplete="off"
              spellcheck={false}
              required
              placeholder="swt_…"
              value={text}
              onInput={(event) => setText(event.currentTarget.value)}
            />
          )}
        </Field>
        {error !== null && <ErrorNote error={error} />}
        <button type="submit" class="primary wide" disabled={isWorking || !text.trim()}>
          {isWorking ? "Signing in…" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
