// Light or dark: as the system has it, until a choice is made here.
import { signal } from "@preact/signals";

export type Theme = "system" | "light" | "dark";
const KEY = "sandwich.theme";

export const theme = signal<Theme>((localStorage.getItem(KEY) as Theme | null) ?? "system");

const dark = window.matchMedia("(prefers-color-scheme: dark)");
/** What the system prefers now. */
export const isDark = signal(dark.matches);
dark.addEventListener("change", () => {
  isDark.value = dark.matches;
});

function show(): void {
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
}

export function nextTheme(): void {
  const order: Theme[] = ["system", "light", "dark"];
  theme.value = order[(order.indexOf(theme.value) + 1) % order.length] ?? "system";
  if (theme.value === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme.value);
  show();
}

show();
