import type { ComponentChildren, JSX } from "preact";
import type { Problem, Severity } from "../api/types";
import { actionFor, SubjectLink } from "../subject";
import { plural } from "./format";
import { Since, StateWord } from "./parts";

const ORDER: Severity[] = ["critical", "warning", "notice"];
const OF_A_KIND = 3;

/**
 * What is wrong, worst first, with what to do. Of many of one kind some are shown, the others on demand.
 *
 * `on`: the address of the page; an action that only leads there is left out.
 */
export function Problems({ problems, on }: { problems: readonly Problem[]; on?: string }): JSX.Element {
  const kinds = new Map<string, Problem[]>();
  const sorted = [...problems].sort((a, b) => ORDER.indexOf(a.severity) - ORDER.indexOf(b.severity));
  for (const problem of sorted) {
    const kind = `${problem.severity} ${problem.code}`;
    kinds.set(kind, [...(kinds.get(kind) ?? []), problem]);
  }
  return (
    <ul class="problems">
      {[...kinds].flatMap(([kind, of]) => {
        const shown = of.length > OF_A_KIND + 1 ? of.slice(0, OF_A_KIND) : of;
        const rest = of.slice(shown.length);
        return [
          ...shown.map((problem) => <Row key={keyOf(problem)} problem={problem} on={on} />),
          rest.length > 0 && (
            <li class="more" key={kind}>
              <details>
                <summary>
                  {plural(rest.length, "more", "more")} of the kind {rest[0]?.code}
                </summary>
                <ul>
                  {rest.map((problem) => (
                    <Row key={keyOf(problem)} problem={problem} on={on} />
                  ))}
                </ul>
              </details>
            </li>
          ),
        ];
      })}
    </ul>
  );
}

/** A long list of numbers may be broken behind its commas, and not within a number. */
function breakable(text: string): ComponentChildren {
  return text.split(/(?<=\d,)(?=\d)/).flatMap((part, index) => (index ? [<wbr />, part] : [part]));
}

function keyOf(problem: Problem): string {
  return `${problem.code} ${problem.subject} ${problem.summary}`;
}

function Row({ problem, on }: { problem: Problem; on?: string }): JSX.Element {
  const action = actionFor(problem, on);
  return (
    <li>
      <StateWord state={problem.severity} />
      <span class="summary">{breakable(problem.summary)}</span>
      {problem.advice && <span class="advice">What to do: {breakable(problem.advice)}.</span>}
      <span class="meta">
        <SubjectLink problem={problem} />
        {problem.since !== null && (
          <span>
            for <Since at={problem.since} />
          </span>
        )}
        {problem.nodes.length > 0 && <span>reported by {problem.nodes.join(", ")}</span>}
        <span>{problem.code}</span>
      </span>
      {action && <span class="act">{action}</span>}
    </li>
  );
}
