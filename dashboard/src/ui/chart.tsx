// One line over time. Its figures are beside it as text.
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import { clock, rate } from "./format";
import { isDark, theme } from "./theme";

export interface Point {
  at: number;
  value: number;
}

export function Chart(props: { points: readonly Point[]; label: string; height?: number }): JSX.Element {
  const frame = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const height = props.height ?? 96;
  const mode = `${theme.value} ${isDark.value}`;
  useEffect(() => {
    const element = frame.current;
    if (!element) return;
    const colours = getComputedStyle(element);
    const axis = { stroke: colours.color, grid: { show: false }, ticks: { show: false }, font: "11px system-ui", gap: 2 };
    const made = new uPlot(
      {
        width: Math.max(120, element.clientWidth),
        height,
        legend: { show: false },
        cursor: { show: false },
        padding: [6, 4, 0, 0],
        scales: { y: { range: (_, __, most) => [0, Math.max(1, most * 1.15)] } },
        axes: [
          { ...axis, size: 18, space: 90, values: (_, found, __, ___, step) => found.map((at) => clock(at, step < 60)) },
          { ...axis, size: 44, space: 28, values: (_, found) => found.map((value) => rate(value)) },
        ],
        series: [{}, { stroke: colours.borderTopColor, width: 1.5, points: { show: false } }],
      },
      data(props.points),
      element,
    );
    plot.current = made;
    const observer = new ResizeObserver(() => {
      made.setSize({ width: Math.max(120, element.clientWidth), height });
    });
    observer.observe(element);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [mode, height]);
  useEffect(() => plot.current?.setData(data(props.points)), [props.points]);
  return <div class="chart" ref={frame} role="img" aria-label={props.label} style={{ minHeight: `${height}px` }} />;
}

function data(points: readonly Point[]): uPlot.AlignedData {
  return [points.map((point) => point.at), points.map((point) => point.value)];
}
