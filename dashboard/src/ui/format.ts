// Numbers and times as people read them.
const GROUPED = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : GROUPED.format(value).replaceAll(",", "\u202f");
}

export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return "–";
  return value < 10 && value > 0 ? value.toFixed(1) : count(value);
}

export function plural(value: number, one: string, many = `${one}s`): string {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function bytes(value: number): string {
  if (value < 1024) return `${value} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  let left = value / 1024;
  let unit = 0;
  while (left >= 1000 && unit < units.length - 1) {
    left /= 1024;
    unit += 1;
  }
  return `${left >= 100 ? left.toFixed(0) : left.toFixed(1)} ${units[unit]}`;
}

export function milliseconds(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : `${Math.round(value)} ms`;
}

/** How complete a cache is. */
export function cacheText(text: string): string {
  return text === "-" ? "–" : text;
}

/** A length of time, with two units at most. */
export function duration(seconds: number): string {
  const s = Math.max(0, seconds);
  if (s < 1) return `${Math.round(s * 1000)} ms`;
  if (s < 10) return `${s.toFixed(1).replace(/\.0$/, "")} s`;
  if (s < 90) return `${Math.round(s)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${pad(Math.floor(s % 60), "s")}`.trim();
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${pad(Math.floor((s % 3600) / 60), "min")}`.trim();
  return `${Math.floor(s / 86_400)} d ${pad(Math.floor((s % 86_400) / 3600), "h")}`.trim();
}

function pad(value: number, unit: string): string {
  return value ? `${value} ${unit}` : "";
}

/** Unix seconds as a local time; with the date when it is not today. */
export function clock(at: number, withSeconds = true): string {
  const then = new Date(at * 1000);
  const time = then.toLocaleTimeString("en-GB", {
    hour: "2-digit",
    minute: "2-digit",
    ...(withSeconds ? { second: "2-digit" } : {}),
  });
  return then.toDateString() === new Date().toDateString() ? time : `${day(then)} ${time}`;
}

function day(then: Date): string {
  const two = (value: number): string => String(value).padStart(2, "0");
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())}`;
}

export function isoTime(at: number): string {
  return new Date(at * 1000).toISOString();
}
