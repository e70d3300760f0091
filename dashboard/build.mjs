// Builds the pages into the node's package. With --check: compares instead, and fails when they differ.
import { readFile, writeFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, "..", "node", "sandwich_node", "dashboard", "static");
const check = process.argv.includes("--check");

const bundled = await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx" },
  outdir: "out",
  bundle: true,
  format: "esm",
  target: ["es2022", "chrome123", "firefox121", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  minify: true,
  legalComments: "none",
  charset: "utf8",
  write: false,
});

const files = new Map(bundled.outputFiles.map((file) => [file.path.split(/[\\/]/).pop(), file.text]));
for (const name of ["index.html", "icon.svg"]) {
  files.set(name, await readFile(join(here, "src", name), "utf8"));
}
const licenses = [];
for (const name of ["preact", "@preact/signals", "@preact/signals-core", "uplot"]) {
  const text = await readFile(join(here, "node_modules", name, "LICENSE"), "utf8");
  licenses.push(`${name}\n\n${text.trim()}\n`);
}
files.set("licenses.txt", licenses.join("\n----\n\n"));

let differ = false;
for (const [name, text] of files) {
  const path = join(target, name);
  if (check) {
    const present = await readFile(path, "utf8").catch(() => "");
    if (present !== text) {
      console.error(`${name} is not what the sources give: run make dashboard`);
      differ = true;
    }
  } else {
    await mkdir(target, { recursive: true });
    await writeFile(path, text);
    console.log(`${name}: ${Buffer.byteLength(text)} bytes`);
  }
}
process.exit(differ ? 1 : 0);
