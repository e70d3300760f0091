// Print an application's events: node consumer.mjs APPLICATION GROUP
//
// NATS_URL                  default nats://127.0.0.1:4222; with tls:// the connection has TLS
// NATS_USER, NATS_PASSWORD  the application's user; or NATS_CREDS, a credentials file
// NATS_DOMAIN               "sandwich" in an application's account
// NATS_CA                   the file of a CA that the system does not know
import { readFileSync } from "node:fs";
import { decompress } from "fzstd";
import { AckPolicy, connect, credsAuthenticator } from "nats";

function end(text) {
  console.error(text);
  process.exit(1);
}

const [app, group] = process.argv.slice(2);
if (!group) end("node consumer.mjs APPLICATION GROUP");
const { NATS_URL = "nats://127.0.0.1:4222", NATS_USER, NATS_PASSWORD, NATS_CREDS, NATS_CA, NATS_DOMAIN } = process.env;
const stream = `SANDWICH_${app}`;
const CONSUMER_NOT_FOUND = 10014;

const parts = new Map();

// A frame's payload; null for a part that is not the last, and for frames without events.
function whole(message) {
  if (message.headers?.get("Sandwich-Count") === "0") return null;
  const part = message.headers?.get("Sandwich-Part");
  if (!part) return message.data;
  const [index, total] = part.split("/").map(Number);
  if (!(index >= 1 && index <= total)) throw new Error(`no such part: ${part}`);
  const held = index === 1 ? [] : parts.get(message.subject) ?? [];
  held.push(message.data);
  parts.set(message.subject, held);
  if (index < total || held.length < total) return null;
  parts.delete(message.subject);
  return Buffer.concat(held);
}

// Print a frame's events. One that cannot be read is passed over: it would come again for ever.
function show(message) {
  let lines = [];
  try {
    const payload = whole(message);
    if (payload !== null) lines = new TextDecoder().decode(decompress(payload)).split("\n").slice(0, -1);
  } catch (error) {
    console.error("a frame cannot be read:", error.message);
  }
  for (const line of lines) {
    try {
      const event = JSON.parse(line);
      console.log(event.t, event.__sandwich.id);
    } catch (error) {
      console.error("an event cannot be read:", error.name);
    }
  }
}

// The group's durable. One that is missing is created, where NATS has no accounts.
async function openGroup(client) {
  const { consumers } = client.jetstream({ domain: NATS_DOMAIN });
  try {
    return await consumers.get(stream, group);
  } catch (error) {
    if (error.api_error?.err_code !== CONSUMER_NOT_FOUND) throw error;
  }
  const manager = await client.jetstreamManager({ domain: NATS_DOMAIN, checkAPI: false });
  await manager.consumers.add(stream, {
    durable_name: group,
    ack_policy: AckPolicy.Explicit,
    filter_subject: `sandwich.${app}.events.all.>`,
    max_ack_pending: 10000,
  });
  return await consumers.get(stream, group);
}

const client = await connect({
  servers: NATS_URL.split(","),
  user: NATS_USER,
  pass: NATS_PASSWORD,
  authenticator: NATS_CREDS && credsAuthenticator(readFileSync(NATS_CREDS)),
  // `host`: the certificate of a server whose address is an IP is otherwise compared with the name localhost.
  tls: NATS_URL.startsWith("tls://") ? { caFile: NATS_CA, host: new URL(NATS_URL.split(",")[0]).hostname } : undefined,
  maxReconnectAttempts: -1,
}).catch((error) => end(`NATS: ${error.message}`));
const durable = await openGroup(client).catch((error) =>
  end(`The group ${group} cannot be opened or created (${error.message}).
The operator creates it: sandwich group create ${app} ${group}
In an application's account, and only there, NATS_DOMAIN is sandwich.`),
);
const messages = await durable.consume();
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => messages.close());
for await (const message of messages) {
  show(message);
  message.ack();
}
await client.drain();
