// A discord.js bot in its own process: see benchmarks/clients.py. BENCH_TOKEN, BENCH_API (without its version).
import { Client, Events, GatewayIntentBits } from "discord.js";

const intents = Object.values(GatewayIntentBits).filter((value) => typeof value === "number");
const client = new Client({ intents, shards: "auto", rest: { api: process.env.BENCH_API, version: "10" } });
let messages = 0;
let printed = -1;

client.on(Events.MessageCreate, () => {
  messages += 1;
});
client.once(Events.ClientReady, () => {
  console.log("ready");
  setInterval(() => {
    if (messages !== printed) console.log((printed = messages));
  }, 500);
});
client.login(process.env.BENCH_TOKEN);
