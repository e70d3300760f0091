// node consumer.mjs nats://127.0.0.1:4222 mybot
// In an application's account: NATS_USER, NATS_PASSWORD and NATS_DOMAIN=sandwich in the environment.
import { decompress } from "fzstd";
import { AckPolicy, connect } from "nats";

const [server, app] = process.argv.slice(2);
const stream = `SANDWICH_${app}`;
const group = "example-js";

const { NATS_USER: user, NATS_PASSWORD: pass, NATS_DOMAIN: domain } = process.env;
const client = await connect({ servers: server, user, pass, maxReconnectAttempts: -1 });
const jetstream = client.jetstream({ domain });
const NO_SUCH_CONSUMER = 10014;

// The group is made when it is missing; in an application's account only the operator may make it.
async function open() {
  try {
    return await jetstream.consumers.get(stream, group);
  } catch (error) {
    if (error.api_error?.err_code !== NO_SUCH_CONSUMER) throw error;
  }
  const manager = await client.jetstreamManager({ domain, checkAPI: false });
  await manager.consumers.add(stream, {
    durable_name: group,
    ack_policy: AckPolicy.Explicit,
    filter_subject: `sandwich.${app}.events.all.>`,
    max_ack_pending: 10000,
  });
  return await jetstream.consumers.get(stream, group);
}

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

const consumer = await open().catch((error) => {
  console.error(`group ${group} cannot be opened (${error.message}); the operator makes it: sandwich group create ${app} ${group}`);
  process.exit(1);
});
for await (const message of await consumer.consume()) {
  show(message);
  message.ack();
}
