// What the API answers, by the names that pages use. `schema.ts` is made from the API's own description.
import type { components } from "./schema";

type Schemas = components["schemas"];

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };

export interface Page<T> {
  items: T[];
  next: string | null;
}

export type RoleName = "viewer" | "operator" | "admin";
export type Me = Omit<Schemas["Me"], "role"> & { role: RoleName };

export type Severity = "critical" | "warning" | "notice";
export type Problem = Omit<Schemas["Problem"], "severity"> & { severity: Severity };
export type ProblemDetails = Schemas["ProblemDetails"];
export type FieldError = Schemas["FieldError"];

export type Cluster = Schemas["Cluster"];
export type Latency = Schemas["Latency"];
export type HistoryFigures = Schemas["HistoryFigures"];
export type Node = Schemas["Node"];
export type Change = Schemas["Change"];
export type AppSummary = Schemas["AppSummary"];
export type Proposal = Schemas["Proposal"];
export type App = Omit<Schemas["App"], "effective" | "configuration"> & {
  effective: Record<string, Json>;
  configuration: Record<string, Json>;
};
export type NewSessions = Schemas["NewSessions"];
export type FieldChange = Omit<Schemas["FieldChange"], "before" | "after"> & { before: Json; after: Json };
export type AppChanged = Omit<Schemas["AppChanged"], "changes"> & { changes: FieldChange[] };
export type TestedBot = Schemas["TestedBot"];
export type Start = Schemas["Start"];
export type Budget = Schemas["Budget"];
export type Group = Schemas["Group"];
export type Groups = Schemas["Groups"];
export type Outcome = Schemas["Outcome"];
export type ScaleOutcome = Schemas["ScaleOutcome"];
export type Shard = Schemas["Shard"];
export type ShardFailover = Schemas["ShardFailover"];
export type Loss = Schemas["Loss"];
export type ShardDetails = Schemas["ShardDetails"];
export type Failover = Schemas["Failover"];
export type Recent = Schemas["Recent"];
export type LogLine = Schemas["LogEntry"];
export type LogPage = Schemas["LogPage"];
export type AuditEntry = Omit<Schemas["Entry"], "before" | "after"> & { before: Json; after: Json };
export type ApiToken = Schemas["Token"];
export type NewApiToken = Schemas["NewToken"];
export type User = Schemas["AccessUser"];

export type Consumer = Schemas["Consumer"];
export type ConsumerGroup = Schemas["ConsumerGroup"];
export type Consumers = Schemas["Consumers"];
export type DeadLetter = Schemas["DeadLetter"];
export type LetterContent = Schemas["LetterContent"];
export type Replayed = Schemas["Replayed"];
export type Discarded = Schemas["Discarded"];
export type Footprint = Schemas["Footprint"];
export type GuildLocations = Schemas["GuildLocations"];
export type Guild = Schemas["Guild"];
export type Items = Schemas["Items"];
export type Members = Schemas["Members"];
export type Permissions = Schemas["Permissions"];
export type MutualGuilds = Schemas["MutualGuilds"];
export type MutualGuild = Schemas["MutualGuild"];
export type Webhook = Schemas["Webhook"];
export type NewWebhook = Schemas["NewWebhook"];
export type WebhookChange = Schemas["WebhookChange"];
