import type { JSX } from "preact";
import { useMemo } from "preact/hooks";
import type { HistoryFigures } from "../api/types";
import { histories } from "../state/history";
import { useResource } from "../state/resource";
import { Chart, type Point } from "./chart";
import { rate } from "./format";
import { Section } from "./parts";

/** Events a second of an application, or of all: the hours that the cluster keeps, then what this page has seen. */
export function EventRate({ app }: { app: string }): JSX.Element | null {
  const kept = useResource<HistoryFigures>(`/history${app ? `?app=${encodeURIComponent(app)}` : ""}`, { every: 60_000 });
  const seen = histories.value.get(app) ?? [];
  const points = useMemo(() => joined(kept.data, seen), [kept.data, seen]);
  if (points.length < 2) return null;
  const hasHours = (kept.data?.at.length ?? 0) > 0;
  return (
    <Section title="Events a second" aside={hasHours ? "the last six hours at most" : "since this page was opened"}>
      <Chart points={points} label={`Events a second: ${rate(points[points.length - 1]?.value)} now`} />
    </Section>
  );
}

/** A minute in which no application answered has no point. */
export function joined(kept: HistoryFigures | undefined, seen: readonly Point[]): Point[] {
  const points: Point[] = [];
  kept?.at.forEach((at, index) => {
    const values = kept.app_figures.map((one) => one.events_per_s[index]).filter((value) => typeof value === "number");
    if (values.length) points.push({ at, value: values.reduce((sum, value) => sum + value, 0) });
  });
  const last = points[points.length - 1]?.at ?? 0;
  return [...points, ...seen.filter((point) => point.at > last)];
}
