// Writes the types of what the API answers, from its OpenAPI document on standard input: src/api/schema.ts.
import { writeFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import openapi, { astToString } from "openapi-typescript";

const document = JSON.parse(await text(process.stdin));
// The pages name routes themselves; the types of 50 routes with all their errors would be 400 kB.
const found = await openapi({ ...document, paths: {} }, { alphabetize: true });
const head = "// Made by `make dashboard-types` from the API's OpenAPI document. Do not edit.\n";
await writeFile(new URL("src/api/schema.ts", import.meta.url), head + astToString(found));
