// Made by `make dashboard-types` from the API's OpenAPI document. Do not edit.
export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /**
         * AccessUser
         * @description A Discord user who may sign in. `usable` false: the record was not made with the cluster key.
         */
        AccessUser: {
            /** Apps */
            apps: string[] | null;
            /** Created At */
            created_at: number;
            /** Created By */
            created_by: string;
            /** Role */
            role: string;
            /** Usable */
            usable: boolean;
            /** User */
            user: string;
        };
        /**
         * App
         * @description An application: how it is, and its configuration.
         *
         *     revision       of the stored configuration: the first part of the ETag
         *     configuration  as under `apps.NAME` in cluster.yml; the token is replaced by the name of a variable
         *     effective      every key with the value in effect
         *     defaults       the paths of the keys in `effective` that have their default
         *     group          number of the serving shard group; null: it has none yet
         */
        App: {
            /** App */
            app: string;
            /** Bot Id */
            bot_id: string;
            /** Bot Name */
            bot_name: string;
            /** Configuration */
            configuration: {
                [key: string]: unknown;
            };
            /** Defaults */
            defaults: string[];
            /** Effective */
            effective: {
                [key: string]: unknown;
            };
            /** Group */
            group: number | null;
            proposal: components["schemas"]["Proposal"] | null;
            /** Revision */
            revision: number;
            status: components["schemas"]["AppSummary"];
        };
        /**
         * AppChanged
         * @description A new or changed application. `written` false: a dry run, or nothing was to change.
         *
         *     `new_sessions`: what the new sessions cost that this starts; null: it starts none.
         */
        AppChanged: {
            /** App */
            app: string;
            bot: components["schemas"]["TestedBot"] | null;
            /** Changes */
            changes: components["schemas"]["FieldChange"][];
            new_sessions: components["schemas"]["NewSessions"] | null;
            /** Revision */
            revision: number;
            /** Warnings */
            warnings: components["schemas"]["Warned"][];
            /** Written */
            written: boolean;
        };
        /**
         * AppFigures
         * @description An application's figures, one value a point; null where it was not there.
         *
         *     `latency_ms`: the median of its shards.
         */
        AppFigures: {
            /** App */
            app: string;
            /** Events Per S */
            events_per_s: (number | null)[];
            /** Guilds */
            guilds: (number | null)[];
            /** Latency Ms */
            latency_ms: (number | null)[];
            /** Shards Live */
            shards_live: (number | null)[];
            /** Shards Wanted */
            shards_wanted: (number | null)[];
        };
        /**
         * AppPatch
         * @description New values of an application's configuration, by dotted path: `{"events.ignore": ["TYPING_START"]}`.
         *
         *     new_sessions  also when that starts new sessions, which `dry_run=true` shows
         *     force         also while no node has room for some of the new shards: the change then waits beside the present ones
         *     token, check  as with PUT /apps/{app}/token, in the same change; null: the token stays
         */
        AppPatch: {
            /**
             * Check
             * @default true
             */
            check: boolean;
            /**
             * Force
             * @default false
             */
            force: boolean;
            /**
             * New Sessions
             * @default false
             */
            new_sessions: boolean;
            /**
             * Set
             * @default {}
             */
            set: {
                [key: string]: unknown;
            };
            /**
             * Token
             * @default null
             */
            token: string | null;
        };
        /**
         * AppSummary
         * @description How an application is.
         *
         *     state         of its serving shard group; also paused, removing, down (no node), waiting (it has none yet)
         *     paused_at     since when an operator paused it (Unix seconds); null: not so
         *     shards        how many of its shards are in each state, of `shards_wanted`
         *     change        how far a change of its shard group is; null: there is none
         *     cache         how complete its cache is, in words
         *     problems      how many there are, by severity
         */
        AppSummary: {
            /** App */
            app: string;
            /** Cache */
            cache: string;
            change: components["schemas"]["Change"] | null;
            /** Events Per S */
            events_per_s: number;
            /** Guilds */
            guilds: number;
            /** Paused At */
            paused_at: number | null;
            /** Problems */
            problems: {
                [key: string]: number;
            };
            /** Reason */
            reason: string;
            /** Session Starts Left */
            session_starts_left: number | null;
            /** Session Starts Reset At */
            session_starts_reset_at: number | null;
            /** Session Starts Total */
            session_starts_total: number | null;
            /** Shards */
            shards: {
                [key: string]: number;
            };
            /** Shards Wanted */
            shards_wanted: number;
            /** State */
            state: string;
        };
        /**
         * Budget
         * @description The session starts of one bot. `reserve` of them are kept for failover; `fetched_at`, `reset_at`: Unix seconds.
         *
         *     `error`: why Discord refused the token; "" when it did not.
         */
        Budget: {
            /** Apps */
            apps: string[];
            /** Bot Id */
            bot_id: string;
            /** Bot Name */
            bot_name: string;
            /** Error */
            error: string;
            /** Fetched At */
            fetched_at: number;
            /** Max Concurrency */
            max_concurrency: number;
            /** Recommended Shards */
            recommended_shards: number;
            /** Remaining */
            remaining: number;
            /** Reserve */
            reserve: number;
            /** Reset At */
            reset_at: number;
            /** Starts */
            starts: components["schemas"]["Start"][];
            /** Total */
            total: number;
        };
        /**
         * CachedGuild
         * @description A guild in one cache namespace.
         *
         *     guild     as Discord describes it, without its collections; null: its own data is not cached
         *     cached    how much there is of each collection
         *     channels, roles, members  where they were asked for, else null; at most 100 members
         */
        CachedGuild: {
            /** Cached */
            cached: {
                [key: string]: number;
            };
            /**
             * Channels
             * @default null
             */
            channels: {
                [key: string]: unknown;
            }[] | null;
            /** Guild */
            guild: {
                [key: string]: unknown;
            } | null;
            /** Id */
            id: string;
            /**
             * Members
             * @default null
             */
            members: {
                [key: string]: unknown;
            }[] | null;
            /** Namespace */
            namespace: string;
            /**
             * Roles
             * @default null
             */
            roles: {
                [key: string]: unknown;
            }[] | null;
            /** Where */
            where: components["schemas"]["CachedShard"][];
        };
        /**
         * CachedGuilds
         * @description The guild in each namespace that has it. `absence`: why there is none; "" when there is one.
         */
        CachedGuilds: {
            /** Absence */
            absence: string;
            /** Items */
            items: components["schemas"]["CachedGuild"][];
        };
        /**
         * CachedShard
         * @description The shard of a guild for one application, and the node that runs it now; null: no node.
         */
        CachedShard: {
            /** App */
            app: string;
            /** Group */
            group: number;
            /** Namespace */
            namespace: string;
            /** Node */
            node: string | null;
            /** Shard */
            shard: number;
            /** State */
            state: string;
        };
        /**
         * CachedShards
         * @description The applications that are in a guild. `absence`: why there is none; "" when there is one.
         */
        CachedShards: {
            /** Absence */
            absence: string;
            /** Items */
            items: components["schemas"]["CachedShard"][];
        };
        /**
         * Cancelled
         * @description `cancelled` false: nothing was under way.
         */
        Cancelled: {
            /** Cancelled */
            cancelled: boolean;
        };
        /**
         * Change
         * @description How far the change from one shard group to the next is. `seconds_left`: null while that is not known.
         */
        Change: {
            /** From Group */
            from_group: number;
            /** Phase */
            phase: string;
            /** Seconds Left */
            seconds_left: number | null;
            /** Shards */
            shards: number;
            /** Shards Done */
            shards_done: number;
            /** Shards Failed */
            shards_failed: number[];
            /** To Group */
            to_group: number;
        };
        /**
         * ChannelInfoRequest
         * @description Which ephemeral fields of a guild's voice channels.
         */
        ChannelInfoRequest: {
            /**
             * Fields
             * @default [
             *       "status",
             *       "voice_start_time"
             *     ]
             */
            fields: ("status" | "voice_start_time")[];
        };
        /**
         * Cluster
         * @description The cluster in figures. An identity that is limited to applications gets the figures of these.
         *
         *     `healthy`: no problem is critical or a warning. `problems`: how many there are, by severity. `revision`: of what is
         *     stored. `nodes`, `nodes_answering`, `leader`, `versions`: null or empty for an identity that is limited. `latency`:
         *     between a heartbeat and Discord's answer; null while no shard has one.
         */
        Cluster: {
            /** Apps */
            apps: number;
            /** Cluster */
            cluster: string;
            /** Etcd Version */
            etcd_version: string;
            /** Events Per S */
            events_per_s: number;
            /** Guilds */
            guilds: number;
            /** Healthy */
            healthy: boolean;
            latency: components["schemas"]["Latency"] | null;
            /** Leader */
            leader: string | null;
            /** Nodes */
            nodes: number | null;
            /** Nodes Answering */
            nodes_answering: number | null;
            /** Now */
            now: number;
            /** Problems */
            problems: {
                [key: string]: number;
            };
            /** Revision */
            revision: number;
            /** Shards Live */
            shards_live: number;
            /** Shards Wanted */
            shards_wanted: number;
            /** Versions */
            versions: string[];
        };
        /**
         * Configuration
         * @description `file`: as cluster.yml has it; secrets are replaced by the names of variables.
         *
         *     `is_checked`: the cluster key confirms who wrote the addresses in it, or the cluster has none.
         */
        Configuration: {
            /** File */
            file: {
                [key: string]: unknown;
            };
            /** Is Checked */
            is_checked: boolean;
        };
        /**
         * Consumer
         * @description A consumer group. `lag`: frames that are not acknowledged; `floor` grows when some are.
         */
        Consumer: {
            /** App */
            app: string;
            /** Floor */
            floor: number;
            /** Group */
            group: string;
            /** Lag */
            lag: number;
        };
        /**
         * ConsumerGroup
         * @description A consumer group, as JetStream has it now, or what is left of one.
         *
         *     partitions    of an ordered group
         *     lane          that it reads, `*`: all; null: its filter is none of the SDK's
         *     lag           frames that are not acknowledged; null: it has no position, only what it left behind
         *     in_hand       of these, the ones that workers have received
         *     behind_since  when the oldest of these was stored, Unix seconds; null: there is none
         *     dead_letters  its dead letters, one that is stored in parts once for each part
         *     replays       dead letters that were handed back to it and are not acknowledged
         *     reads         whether workers read with it now
         */
        ConsumerGroup: {
            /** App */
            app: string;
            /** Behind Since */
            behind_since: number | null;
            /** Created At */
            created_at: number | null;
            /** Dead Letters */
            dead_letters: number;
            /** Group */
            group: string;
            /** In Hand */
            in_hand: number;
            /** Lag */
            lag: number | null;
            /** Lane */
            lane: string | null;
            /** Ordered */
            ordered: boolean;
            /** Partitions */
            partitions: number;
            /** Reads */
            reads: boolean;
            /** Replays */
            replays: number;
        };
        /**
         * Consumers
         * @description The groups, as the leader last read them; `dead_letters` by application.
         *
         *     A page of both together, by application: it has at most `limit` items.
         */
        Consumers: {
            /** Consumers */
            consumers: components["schemas"]["Consumer"][];
            /** Dead Letters */
            dead_letters: {
                [key: string]: number;
            };
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /**
         * Created
         * @description The consumer group that is there now.
         */
        Created: {
            /** App */
            app: string;
            /** Group */
            group: string;
        };
        /**
         * DeadLetter
         * @description An event, or a message, that a consumer group gave up.
         *
         *     number  of the letter; grows with each new one
         *     kind    `event`, or what else could not be handled
         *     id      of the event; "" where there is none
         *     tries   how often it was tried
         *     at      Unix seconds
         *     subject, stream_seq  of its frame in the stream that the group read
         */
        DeadLetter: {
            /** At */
            at: number;
            /** Error */
            error: string;
            /** Group */
            group: string;
            /** Id */
            id: string;
            /** Kind */
            kind: string;
            /** Number */
            number: number;
            /** Shard */
            shard: number | null;
            /** Shard Group */
            shard_group: number | null;
            /** Stream Seq */
            stream_seq: number;
            /** Subject */
            subject: string;
            /** Tries */
            tries: number;
            /** Type */
            type: string;
        };
        /**
         * DeadLetters
         * @description A part of the letters; `total`: how many match, on all pages.
         */
        DeadLetters: {
            /** Items */
            items: components["schemas"]["DeadLetter"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
            /** Total */
            total: number;
        };
        /**
         * Discarded
         * @description How many letters were removed for good.
         */
        Discarded: {
            /** Discarded */
            discarded: number;
            /** Left */
            left: number;
        };
        /**
         * Document
         * @description An OpenAPI document; see https://spec.openapis.org/oas/v3.1.1.
         */
        Document: {
            /** Components */
            components: {
                [key: string]: unknown;
            };
            /** Info */
            info: {
                [key: string]: unknown;
            };
            /** Openapi */
            openapi: string;
            /** Paths */
            paths: {
                [key: string]: unknown;
            };
        } & {
            [key: string]: unknown;
        };
        /**
         * DrainRequest
         * @description `force`: also when no other node could take its shards.
         */
        DrainRequest: {
            /**
             * Force
             * @default false
             */
            force: boolean;
        };
        /**
         * Entry
         * @description A change or a sign-in. `result`: done, or the code of the refusal.
         */
        Entry: {
            /** After */
            after: unknown;
            /** At */
            at: number;
            /** Before */
            before: unknown;
            /** Client */
            client: string;
            /** Detail */
            detail: string;
            /** Number */
            number: number;
            /** Path */
            path: {
                [key: string]: string;
            };
            /** Result */
            result: string;
            /** What */
            what: string;
            /** Who */
            who: string;
        };
        /**
         * Failover
         * @description Shards that were lost at one place (`source`) and are back. `shards`: ranges; `silent_s`: without any frame.
         */
        Failover: {
            /** App */
            app: string;
            /** At */
            at: number;
            /** Cause */
            cause: string;
            /** Count */
            count: number;
            /** Group */
            group: number;
            /** Identified */
            identified: number;
            /** Nodes */
            nodes: string[];
            /** Replayed */
            replayed: number;
            /** Resumed */
            resumed: number;
            /** Shards */
            shards: string;
            /** Silent S */
            silent_s: number | null;
            /** Source */
            source: string;
            /** Took S */
            took_s: number;
        };
        /**
         * FieldChange
         * @description One changed key of the stored configuration. A secret's values are null.
         */
        FieldChange: {
            /** After */
            after: unknown;
            /** Before */
            before: unknown;
            /** Is Secret */
            is_secret: boolean;
            /** Path */
            path: string;
        };
        /**
         * FieldError
         * @description What is wrong with one value of a request.
         */
        FieldError: {
            /** Message */
            message: string;
            /** Path */
            path: string;
        };
        /**
         * Footprint
         * @description What an application has: what a removal concerns.
         *
         *     guilds        in the cache; null: there is no cache
         *     sharers       other applications of its namespace, which keep their guilds
         *     stored        what was chosen when a removal began that is not finished; null: none did
         */
        Footprint: {
            /** App */
            app: string;
            /** Consumers */
            consumers: components["schemas"]["ReadingGroup"][];
            /** Dead Letters */
            dead_letters: number;
            /** Guilds */
            guilds: number | null;
            /** Namespace */
            namespace: string;
            /** Shards */
            shards: number;
            /** Shards Live */
            shards_live: number;
            /** Sharers */
            sharers: string[];
            stored: components["schemas"]["RemovalChoice"] | null;
            /** Stream Bytes */
            stream_bytes: number;
            /** Stream Max Age S */
            stream_max_age_s: number;
            /** Stream Messages */
            stream_messages: number;
        };
        /**
         * FoundMembers
         * @description What Discord sent.
         */
        FoundMembers: {
            /** Count */
            count: number;
            /** Members */
            members: {
                [key: string]: unknown;
            }[];
            /** Not Found */
            not_found: string[];
            /** Presences */
            presences: {
                [key: string]: unknown;
            }[];
        };
        /**
         * GatewayAnswer
         * @description What Discord answered.
         */
        GatewayAnswer: {
            /** Answer */
            answer: unknown;
        };
        /**
         * Group
         * @description One generation of an application's shards, with one shard count.
         *
         *     ids       the shards that run in this cluster, as ranges
         *     serves    its events are those that consumers get
         *     replaces  the group that it takes over from; null: none
         *     shards    how many of its shards are in each state
         *     start     how far its start is; null when nothing starts
         */
        Group: {
            /** App */
            app: string;
            /** Count */
            count: number;
            /** Created At */
            created_at: number;
            /** Group */
            group: number;
            /** Ids */
            ids: string;
            /** Phase */
            phase: string;
            /** Reason */
            reason: string;
            /** Replaces */
            replaces: number | null;
            /** Serves */
            serves: boolean;
            /** Shards */
            shards: {
                [key: string]: number;
            };
            start: components["schemas"]["Start"] | null;
            /** State */
            state: string;
        };
        /**
         * Groups
         * @description The groups, oldest first; the change that is under way, and the proposal, where there is one.
         */
        Groups: {
            change: components["schemas"]["Change"] | null;
            /** Groups */
            groups: components["schemas"]["Group"][];
            proposal: components["schemas"]["Proposal"] | null;
        };
        /**
         * Guild
         * @description A guild as Discord describes it, without its collections, and where it is.
         */
        Guild: {
            /** Guild */
            guild: {
                [key: string]: unknown;
            };
            /** Guild Id */
            guild_id: string;
            location: components["schemas"]["Location"];
        };
        /**
         * GuildLocations
         * @description The applications that are in a guild.
         */
        GuildLocations: {
            /** Guild Id */
            guild_id: string;
            /** Locations */
            locations: components["schemas"]["Location"][];
            /** Unanswered */
            unanswered: string[];
        };
        /**
         * HistoryFigures
         * @description Figures of the last hours, a point a minute. `at`: Unix seconds of each point.
         *
         *     `critical`, `warnings` (how many problems there were) and `node_figures` are empty for an identity that is limited
         *     to applications.
         */
        HistoryFigures: {
            /** App Figures */
            app_figures: components["schemas"]["AppFigures"][];
            /** At */
            at: number[];
            /** Critical */
            critical: number[];
            /** Kept S */
            kept_s: number;
            /** Node Figures */
            node_figures: components["schemas"]["NodeFigures"][];
            /** Warnings */
            warnings: number[];
        };
        /**
         * Item
         * @description One item of a guild, as Discord describes it.
         */
        Item: {
            /** Guild Id */
            guild_id: string;
            /** Item */
            item: {
                [key: string]: unknown;
            };
        };
        /**
         * Items
         * @description A collection of a guild, as Discord describes its items.
         */
        Items: {
            /** Guild Id */
            guild_id: string;
            /** Items */
            items: {
                [key: string]: unknown;
            }[];
        };
        /**
         * Latency
         * @description Of the shards that have measured one: the median, and the worst with its shard. Milliseconds.
         */
        Latency: {
            /** App */
            app: string;
            /** Group */
            group: number;
            /** Median Ms */
            median_ms: number;
            /** Shard */
            shard: number;
            /** Worst Ms */
            worst_ms: number;
        };
        /**
         * LetterChoice
         * @description Which letters: those with these numbers or event ids, or all (`all`), each only of this group and type.
         *
         *     At most 1000 in one request, the oldest first: `left` says how many more there are.
         */
        LetterChoice: {
            /**
             * All
             * @default false
             */
            all: boolean;
            /**
             * Group
             * @default null
             */
            group: string | null;
            /**
             * Letters
             * @default []
             */
            letters: string[];
            /**
             * Type
             * @default null
             */
            type: string | null;
        };
        /**
         * LetterContent
         * @description A letter with what it holds: `event`, or `headers` and `payload` (base64) where that is no event to be shown.
         *
         *     `unreadable`: why an event cannot be shown.
         */
        LetterContent: {
            /** Event */
            event: unknown;
            /** Headers */
            headers: {
                [key: string]: string;
            } | null;
            letter: components["schemas"]["DeadLetter"];
            /** Payload */
            payload: string | null;
            /** Unreadable */
            unreadable: string;
        };
        /**
         * Location
         * @description The shard of a guild for one application, and the node that runs it now; null: no node.
         */
        Location: {
            /** App */
            app: string;
            /** Group */
            group: number;
            /** Node */
            node: string | null;
            /** Shard */
            shard: number;
            /** State */
            state: string;
        };
        /**
         * LogEntry
         * @description One line. `worker` null: the node's agent. `app` and `shard` ("0/3": group and shard): "" where it names none.
         */
        LogEntry: {
            /** App */
            app: string;
            /** At */
            at: number;
            /** Level */
            level: string;
            /** Logger */
            logger: string;
            /** Message */
            message: string;
            /** Node */
            node: string;
            /** Shard */
            shard: string;
            /** Worker */
            worker: number | null;
        };
        /**
         * LogPage
         * @description Lines, oldest first. `silent`: nodes that did not answer, and why.
         */
        LogPage: {
            /** Lines */
            lines: components["schemas"]["LogEntry"][];
            /** Silent */
            silent: {
                [key: string]: string;
            };
        };
        /**
         * Loss
         * @description A session (its public name) that could not be resumed: what Discord sent after `last_seq` is lost.
         */
        Loss: {
            /** App */
            app: string;
            /** At */
            at: number;
            /** Group */
            group: number;
            /** Last Seq */
            last_seq: number;
            /** Node */
            node: string;
            /** Reason */
            reason: string;
            /** Session */
            session: string;
            /** Shard */
            shard: number;
        };
        /**
         * Me
         * @description Who asks. `apps` null: no limit.
         */
        Me: {
            /** Apps */
            apps: string[] | null;
            /** Kind */
            kind: string;
            /** Name */
            name: string;
            /** Role */
            role: string;
        };
        /**
         * Members
         * @description Members of a guild from the cache. `complete`: these are all that were asked for.
         */
        Members: {
            /** Complete */
            complete: boolean;
            /** Guild Id */
            guild_id: string;
            /** Members */
            members: {
                [key: string]: unknown;
            }[];
        };
        /**
         * MembersRequest
         * @description Members of a guild, requested from Discord: those with `user_ids`, whose name begins with `query`, or all.
         *
         *     Without both it is all of them, once in 30 s for each guild. `want` `count`: the answer has no members, which are
         *     then in the cache. `timeout`: seconds.
         */
        MembersRequest: {
            /**
             * Limit
             * @default 0
             */
            limit: number;
            /**
             * Presences
             * @default false
             */
            presences: boolean;
            /**
             * Query
             * @default null
             */
            query: string | null;
            /**
             * Timeout
             * @default 30
             */
            timeout: number;
            /**
             * User Ids
             * @default null
             */
            user_ids: string[] | null;
            /**
             * Want
             * @default members
             * @enum {string}
             */
            want: "members" | "count";
        };
        /**
         * Move
         * @description One shard that is to move. `source` null: it runs nowhere.
         */
        Move: {
            /** App */
            app: string;
            /** Group */
            group: number;
            /** Reason */
            reason: string;
            /** Shard */
            shard: number;
            /** Source */
            source: string | null;
            /** Target */
            target: string;
        };
        /**
         * MoveRequest
         * @description Which shards (`3`, `0-7,12`), and to which node. The pin holds until it is removed.
         */
        MoveRequest: {
            /** Node */
            node: string;
            /** Shards */
            shards: string;
        };
        /**
         * MutualGuild
         * @description A guild that a user shares with applications. `name`, `icon`: null where they were not asked for.
         */
        MutualGuild: {
            /** Apps */
            apps: string[];
            /** Guild Id */
            guild_id: string;
            /** Icon */
            icon: string | null;
            /** Name */
            name: string | null;
        };
        /**
         * MutualGuilds
         * @description The guilds that a user shares with the applications. `unanswered`: applications whose cache did not answer.
         */
        MutualGuilds: {
            /** Guilds */
            guilds: components["schemas"]["MutualGuild"][];
            /** Unanswered */
            unanswered: string[];
            /** User Id */
            user_id: string;
        };
        /**
         * NewApp
         * @description A new application. `token` is tested against Discord, unless `check` is false, and is never shown again.
         *
         *     `config`: as under `apps.NAME` in cluster.yml, without the token.
         */
        NewApp: {
            /**
             * Check
             * @default true
             */
            check: boolean;
            /** Config */
            config: {
                [key: string]: unknown;
            };
            /** Name */
            name: string;
            /**
             * Token
             * Format: password
             */
            token: string;
        };
        /**
         * NewConsumer
         * @description A consumer group for workers that may not make one themselves (NATS users).
         *
         *     start       `new` events, `all` that are kept, or those since a time such as 2026-01-31T12:00:00Z
         *     ack_wait_s  the workers' own
         *     shards      an ordered group is made for this many shards
         */
        NewConsumer: {
            /**
             * Ack Wait S
             * @default 30
             */
            ack_wait_s: number;
            /** Group */
            group: string;
            /**
             * Lane
             * @default all
             */
            lane: string;
            /**
             * Ordered
             * @default false
             */
            ordered: boolean;
            /**
             * Shards
             * @default null
             */
            shards: number | null;
            /**
             * Start
             * @default new
             */
            start: ("new" | "all") | string;
        };
        /**
         * NewSessions
         * @description What new sessions for an application cost.
         *
         *     reasons                  what is different, for example "4 shards -> 8 shards"
         *     session_starts           how many it costs; `session_starts_kept` of those left are for failover
         *     session_starts_reset_at  when all session starts are there again (Unix seconds)
         *     seconds                  the least time that the starts take
         *     memory_bytes             what the new shards need beside the present ones, without traffic
         *     at_once                  the present shards end first
         *     shards_without_room      how many of the new shards no node has room for now
         *     room_advice              what would make room, in words; "" when there is room
         *     begins_now               whether enough session starts are there; otherwise it begins after the reset
         */
        NewSessions: {
            /** App */
            app: string;
            /** At Once */
            at_once: boolean;
            /** Begins Now */
            begins_now: boolean;
            /** Memory Bytes */
            memory_bytes: number;
            /** Reasons */
            reasons: string[];
            /** Room Advice */
            room_advice: string;
            /** Seconds */
            seconds: number;
            /** Session Starts */
            session_starts: number;
            /** Session Starts Kept */
            session_starts_kept: number;
            /** Session Starts Left */
            session_starts_left: number | null;
            /** Session Starts Reset At */
            session_starts_reset_at: number | null;
            /** Session Starts Total */
            session_starts_total: number | null;
            /** Shards After */
            shards_after: number;
            /** Shards Before */
            shards_before: number;
            /** Shards Without Room */
            shards_without_room: number;
        };
        /**
         * NewToken
         * @description A token that was just made. `token` is shown this once.
         */
        NewToken: {
            /** Apps */
            apps: string[] | null;
            /** Created At */
            created_at: number;
            /** Created By */
            created_by: string;
            /** Expires At */
            expires_at: number;
            /** Id */
            id: string;
            /** Name */
            name: string;
            /** Role */
            role: string;
            /** Token */
            token: string;
            /** Usable */
            usable: boolean;
        };
        /**
         * NewWebhook
         * @description A webhook as it is to be. `type` null: by its URL. `apps` empty: all, and what concerns the cluster.
         */
        NewWebhook: {
            /**
             * Allow Private
             * @default false
             */
            allow_private: boolean;
            /**
             * Apps
             * @default []
             */
            apps: string[];
            /**
             * Events
             * @default [
             *       "problems",
             *       "budget",
             *       "nodes",
             *       "apps",
             *       "losses"
             *     ]
             */
            events: ("problems" | "budget" | "nodes" | "leader" | "apps" | "shards" | "failovers" | "losses")[];
            /**
             * Min Severity
             * @default notice
             * @enum {string}
             */
            min_severity: "critical" | "warning" | "notice";
            /** Name */
            name: string;
            /**
             * Secret
             * Format: password
             * @default
             */
            secret: string;
            /**
             * Template
             * @default
             */
            template: string;
            /**
             * Type
             * @default null
             */
            type: ("discord" | "generic") | null;
            /**
             * Url
             * Format: password
             */
            url: string;
        };
        /**
         * Node
         * @description One registered node. `answers` false: it does not, and `error` says why; its figures are then 0.
         */
        Node: {
            /** Address */
            address: string;
            /** Answers */
            answers: boolean;
            /** Capacity */
            capacity: number;
            /** Cpu Percent */
            cpu_percent: number;
            /** Error */
            error: string;
            /** Events Per S */
            events_per_s: number;
            /** Guilds */
            guilds: number;
            /** Labels */
            labels: {
                [key: string]: string;
            };
            /** Leader */
            leader: boolean;
            /** Max Shards */
            max_shards: number;
            /** Node */
            node: string;
            /** Revision */
            revision: number;
            /** Rss Bytes */
            rss_bytes: number;
            /** Shards */
            shards: number;
            /** Started At */
            started_at: number;
            /** State */
            state: string;
            /** Version */
            version: string;
            /** Workers */
            workers: number;
        };
        /**
         * NodeFigures
         * @description A node's figures, one value a point; null where it did not answer. `cpu_percent` is of one core.
         */
        NodeFigures: {
            /** Cpu Percent */
            cpu_percent: (number | null)[];
            /** Events Per S */
            events_per_s: (number | null)[];
            /** Node */
            node: string;
            /** Rss Bytes */
            rss_bytes: (number | null)[];
            /** Shards */
            shards: (number | null)[];
        };
        /**
         * Outcome
         * @description How a change ended that takes time. Not `reached`: it is stored and goes on; `detail` says what is open.
         */
        Outcome: {
            /**
             * Detail
             * @default
             */
            detail: string;
            /**
             * Progress
             * @default []
             */
            progress: {
                [key: string]: unknown;
            }[];
            /** Reached */
            reached: boolean;
        };
        /** Page[AccessUser] */
        Page_AccessUser_: {
            /** Items */
            items: components["schemas"]["AccessUser"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[AppSummary] */
        Page_AppSummary_: {
            /** Items */
            items: components["schemas"]["AppSummary"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Budget] */
        Page_Budget_: {
            /** Items */
            items: components["schemas"]["Budget"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[ConsumerGroup] */
        Page_ConsumerGroup_: {
            /** Items */
            items: components["schemas"]["ConsumerGroup"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Entry] */
        Page_Entry_: {
            /** Items */
            items: components["schemas"]["Entry"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Node] */
        Page_Node_: {
            /** Items */
            items: components["schemas"]["Node"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Pin] */
        Page_Pin_: {
            /** Items */
            items: components["schemas"]["Pin"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Problem] */
        Page_Problem_: {
            /** Items */
            items: components["schemas"]["Problem"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Shard] */
        Page_Shard_: {
            /** Items */
            items: components["schemas"]["Shard"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Token] */
        Page_Token_: {
            /** Items */
            items: components["schemas"]["Token"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /** Page[Webhook] */
        Page_Webhook_: {
            /** Items */
            items: components["schemas"]["Webhook"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /**
         * Permissions
         * @description What a member may do, as Discord's bits in a decimal number.
         */
        Permissions: {
            /** Guild Id */
            guild_id: string;
            /** Permissions */
            permissions: string;
            /** User Id */
            user_id: string;
        };
        /**
         * Pin
         * @description An operator wants this shard on `node`. `unmet`: why that cannot be followed now; null: it is followed.
         */
        Pin: {
            /** App */
            app: string;
            /** At */
            at: number;
            /** Group */
            group: number;
            /** Node */
            node: string;
            /** Shard */
            shard: number;
            /** Unmet */
            unmet: string | null;
        };
        /**
         * PresenceRequest
         * @description The bot's presence, on one shard, or on all. It lasts until a shard begins a new session.
         */
        PresenceRequest: {
            /**
             * Activities
             * @default []
             */
            activities: {
                [key: string]: unknown;
            }[];
            /**
             * Afk
             * @default false
             */
            afk: boolean;
            /**
             * Shard
             * @default null
             */
            shard: number | null;
            /**
             * Since
             * @default null
             */
            since: number | null;
            /**
             * Status
             * @default online
             * @enum {string}
             */
            status: "online" | "dnd" | "idle" | "invisible" | "offline";
        };
        /**
         * PresenceSet
         * @description On how many shards it was set, and why it was not on others.
         */
        PresenceSet: {
            /** Failed */
            failed: {
                [key: string]: string;
            };
            /** Shards */
            shards: number;
        };
        /**
         * Problem
         * @description One thing that is wrong (docs/reference/problems.md). `since`: Unix seconds; null where that is not known.
         */
        Problem: {
            /** Advice */
            advice: string;
            /** Code */
            code: string;
            /** Nodes */
            nodes: string[];
            /** Severity */
            severity: string;
            /** Since */
            since: number | null;
            /** Subject */
            subject: string;
            /** Summary */
            summary: string;
        };
        /**
         * ProblemDetails
         * @description Why a request failed (RFC 9457). `code` is stable; `detail` is for people.
         */
        ProblemDetails: {
            /** Code */
            code: string;
            /** Detail */
            detail: string;
            /**
             * Errors
             * @default []
             */
            errors: components["schemas"]["FieldError"][];
            /** Status */
            status: number;
            /** Title */
            title: string;
            /** Type */
            type: string;
        };
        /**
         * Proposal
         * @description A shard count that the leader proposes, and why. `at`: Unix seconds.
         */
        Proposal: {
            /** At */
            at: number;
            /** Count */
            count: number;
            /** Guilds */
            guilds: number;
            /** Reason */
            reason: string;
        };
        /**
         * ReadingGroup
         * @description A consumer group. `reads`: workers of it are there, or frames wait for their answer.
         */
        ReadingGroup: {
            /** Group */
            group: string;
            /** Lag */
            lag: number;
            /** Reads */
            reads: boolean;
        };
        /**
         * RebalanceOutcome
         * @description How a rebalance ended. `written` false: a dry run.
         */
        RebalanceOutcome: {
            /**
             * Detail
             * @default
             */
            detail: string;
            /** Moves */
            moves?: components["schemas"]["Move"][];
            /**
             * Progress
             * @default []
             */
            progress: {
                [key: string]: unknown;
            }[];
            /** Reached */
            reached: boolean;
            /**
             * Written
             * @default true
             */
            written: boolean;
        };
        /**
         * Recent
         * @description What the nodes remember of failovers, newest first. A node forgets it when it restarts.
         *
         *     A page of both lists together: it has at most `limit` items, and the next page goes on in time.
         */
        Recent: {
            /** Failovers */
            failovers: components["schemas"]["Failover"][];
            /** Losses */
            losses: components["schemas"]["Loss"][];
            /**
             * Next
             * @default null
             */
            next: string | null;
        };
        /**
         * Relayed
         * @description The id of the stored event.
         */
        Relayed: {
            /** Id */
            id: string;
        };
        /**
         * RelayRequest
         * @description An own event among those of a guild or a shard. `type`: 1 to 64 of A-Z, 0-9 and `_`; none of Discord's.
         */
        RelayRequest: {
            /** Data */
            data: unknown;
            /**
             * Guild Id
             * @default null
             */
            guild_id: string | null;
            /**
             * Shard
             * @default null
             */
            shard: number | null;
            /** Type */
            type: string;
        };
        /**
         * RemovalChoice
         * @description What was chosen when a removal began.
         */
        RemovalChoice: {
            /** Delete Stream */
            delete_stream: boolean;
            /** Keep Cache */
            keep_cache: boolean;
        };
        /**
         * RemovalOutcome
         * @description `choice`: what was chosen when the removal began; null: it is not finished.
         */
        RemovalOutcome: {
            /** @default null */
            choice: components["schemas"]["RemovalChoice"] | null;
            /**
             * Detail
             * @default
             */
            detail: string;
            /**
             * Progress
             * @default []
             */
            progress: {
                [key: string]: unknown;
            }[];
            /** Reached */
            reached: boolean;
        };
        /**
         * Replayed
         * @description How many letters went back to their groups. `not_read`: groups without a worker's consumer, which wait.
         */
        Replayed: {
            /** Left */
            left: number;
            /** Not Read */
            not_read: string[];
            /** Replayed */
            replayed: number;
        };
        /**
         * RestartRequest
         * @description How to restart.
         *
         *     hard    end the present sessions first: events are lost
         *     shards  only reconnect these (`0-7,12`), sessions kept: no session start is spent; null: new sessions for all
         *     force   also while no node has room for some of the new shards
         */
        RestartRequest: {
            /**
             * Force
             * @default false
             */
            force: boolean;
            /**
             * Hard
             * @default false
             */
            hard: boolean;
            /**
             * Shards
             * @default null
             */
            shards: string | null;
        };
        /**
         * ResumeOutcome
         * @description How the shards came back: by RESUME, or with a new session. Null: not all are live yet.
         */
        ResumeOutcome: {
            /**
             * Detail
             * @default
             */
            detail: string;
            /**
             * Identified
             * @default null
             */
            identified: number | null;
            /**
             * Progress
             * @default []
             */
            progress: {
                [key: string]: unknown;
            }[];
            /** Reached */
            reached: boolean;
            /**
             * Resumed
             * @default null
             */
            resumed: number | null;
        };
        /**
         * ScaleOutcome
         * @description How a change of shard groups ended. `written` false: a dry run. `new_sessions` null: none are needed.
         *
         *     `revision`: of the configuration that was read, for If-Match; null where the request does not change it.
         */
        ScaleOutcome: {
            /**
             * Detail
             * @default
             */
            detail: string;
            /** @default null */
            new_sessions: components["schemas"]["NewSessions"] | null;
            /**
             * Progress
             * @default []
             */
            progress: {
                [key: string]: unknown;
            }[];
            /** Reached */
            reached: boolean;
            /**
             * Revision
             * @default null
             */
            revision: number | null;
            /** Warnings */
            warnings?: string[];
            /**
             * Written
             * @default true
             */
            written: boolean;
        };
        /**
         * ScaleRequest
         * @description The new shard count, or `auto`.
         *
         *     ids    only these shards run in this cluster, such as `0-31,40`; null: all
         *     force  also while no node has room for some of the new shards: the change then waits beside the present ones
         */
        ScaleRequest: {
            /**
             * Force
             * @default false
             */
            force: boolean;
            /**
             * Ids
             * @default null
             */
            ids: string | null;
            /** Shards */
            shards: number | "auto";
        };
        /**
         * Shard
         * @description One shard of one shard group.
         *
         *     state      as its node says; `unclaimed`: no node runs it
         *     serves     whether its group's events are those that consumers get
         *     since      Unix seconds: in this state; null where it is not known
         *     pinned_to  where an operator wants it; null: not pinned
         *     cache      what its cache lacks, "" when it has everything or there is none
         *     figures    null where its node does not answer: latency_ms, guilds, events_per_s
         */
        Shard: {
            /** App */
            app: string;
            /** Cache */
            cache: string;
            /** Close Code */
            close_code: number | null;
            /** Events Per S */
            events_per_s: number | null;
            /** Group */
            group: number;
            /** Guilds */
            guilds: number | null;
            /** Latency Ms */
            latency_ms: number | null;
            /** Node */
            node: string | null;
            /** Pinned To */
            pinned_to: string | null;
            /** Reason */
            reason: string;
            /** Serves */
            serves: boolean;
            /** Shard */
            shard: number;
            /** Since */
            since: number | null;
            /** State */
            state: string;
            /** Worker */
            worker: number | null;
        };
        /**
         * ShardDetails
         * @description A shard with what happened to it lately, newest first, as far as its nodes remember.
         */
        ShardDetails: {
            /** Failovers */
            failovers: components["schemas"]["ShardFailover"][];
            /** Losses */
            losses: components["schemas"]["Loss"][];
            shard: components["schemas"]["Shard"];
        };
        /**
         * ShardFailover
         * @description The shard was lost at `source` and came back on `node`. `how`: resumed or identified. Times: Unix seconds.
         */
        ShardFailover: {
            /** App */
            app: string;
            /** At */
            at: number;
            /** Cause */
            cause: string;
            /** Group */
            group: number;
            /** How */
            how: string;
            /** Node */
            node: string;
            /** Replayed */
            replayed: number;
            /** Shard */
            shard: number;
            /** Silent S */
            silent_s: number | null;
            /** Source */
            source: string;
            /** Took S */
            took_s: number;
        };
        /**
         * ShardsRequest
         * @description Which shards (`3`, `0-7,12`).
         */
        ShardsRequest: {
            /** Shards */
            shards: string;
        };
        /**
         * SharedGuild
         * @description A guild that a user shares with applications of one namespace. `name`: null when it is not cached.
         */
        SharedGuild: {
            /** Apps */
            apps: string[];
            /** Guild */
            guild: string;
            /** Name */
            name: string | null;
            /** Namespace */
            namespace: string;
        };
        /**
         * SharedGuilds
         * @description The guilds that a user shares with these applications.
         */
        SharedGuilds: {
            /** Apps */
            apps: string[];
            /** Items */
            items: components["schemas"]["SharedGuild"][];
        };
        /**
         * Start
         * @description How far the start of a shard group is.
         *
         *     wanted, started, failed   shards of the group: all, those with a session, those that Discord refused for good
         *     waiting                   those without a session yet
         *     per_minute                session starts that Discord allows for the shards that wait
         *     eta_s                     seconds until the last one has its session; null while that is not known
         *     starts_left               session starts that this group may use until the reset; null when that is not known
         *     blocked_until             Unix seconds: there are too few session starts for all that wait; null: there are enough
         */
        Start: {
            /** App */
            app: string;
            /** Blocked Until */
            blocked_until: number | null;
            /** Eta S */
            eta_s: number | null;
            /** Failed */
            failed: number;
            /** Group */
            group: number;
            /** Per Minute */
            per_minute: number;
            /** Started */
            started: number;
            /** Starts Left */
            starts_left: number | null;
            /** Waiting */
            waiting: number;
            /** Wanted */
            wanted: number;
        };
        /**
         * TestedBot
         * @description What Discord says about a token that was tested.
         *
         *     intents_not_enabled, intents_enabled  of the privileged intents, in the developer portal
         *     guilds                                about how many it is in; null: not known
         *     avatar                                its picture as a data: URL, in a dry run and when Discord gives it; else ""
         */
        TestedBot: {
            /** Avatar */
            avatar: string;
            /** Guilds */
            guilds: number | null;
            /** Id */
            id: string;
            /** Intents Enabled */
            intents_enabled: string[];
            /** Intents Not Enabled */
            intents_not_enabled: string[];
            /** Max Concurrency */
            max_concurrency: number;
            /** Name */
            name: string;
            /** Session Starts Left */
            session_starts_left: number;
            /** Session Starts Reset S */
            session_starts_reset_s: number;
            /** Session Starts Total */
            session_starts_total: number;
            /** Shards Recommended */
            shards_recommended: number;
        };
        /**
         * TestResult
         * @description Whether the receiver took the message; `detail`: why not.
         */
        TestResult: {
            /** Delivered */
            delivered: boolean;
            /** Detail */
            detail: string;
        };
        /**
         * Token
         * @description An API token, without its secret. `expires_at` 0: never. `usable` false: it was not made with the cluster key.
         */
        Token: {
            /** Apps */
            apps: string[] | null;
            /** Created At */
            created_at: number;
            /** Created By */
            created_by: string;
            /** Expires At */
            expires_at: number;
            /** Id */
            id: string;
            /** Name */
            name: string;
            /** Role */
            role: string;
            /** Usable */
            usable: boolean;
        };
        /**
         * TokenReplacement
         * @description The new token of the same bot. It is tested against Discord, unless `check` is false, and is never shown.
         *
         *     `force`: also while no node has room for some of the new shards.
         */
        TokenReplacement: {
            /**
             * Check
             * @default true
             */
            check: boolean;
            /**
             * Force
             * @default false
             */
            force: boolean;
            /**
             * Token
             * Format: password
             */
            token: string;
        };
        /**
         * TokenRequest
         * @description `apps` null: no limit. `expires_in_s`: from now; null: never.
         */
        TokenRequest: {
            /**
             * Apps
             * @default null
             */
            apps: string[] | null;
            /**
             * Expires In S
             * @default null
             */
            expires_in_s: number | null;
            /** Name */
            name: string;
            /**
             * Role
             * @enum {string}
             */
            role: "viewer" | "operator" | "admin";
        };
        /**
         * Unpinned
         * @description The shards, as ranges, and how many pins they had.
         */
        Unpinned: {
            /** Pins */
            pins: number;
            /** Shards */
            shards: string;
        };
        /**
         * User
         * @description A user as Discord describes them.
         */
        User: {
            /** User */
            user: {
                [key: string]: unknown;
            };
            /** User Id */
            user_id: string;
        };
        /**
         * UserRequest
         * @description `apps` null: no limit.
         */
        UserRequest: {
            /**
             * Apps
             * @default null
             */
            apps: string[] | null;
            /**
             * Role
             * @enum {string}
             */
            role: "viewer" | "operator" | "admin";
        };
        /**
         * VoiceStateRequest
         * @description Join or move to a voice channel; `channel_id` null: leave.
         */
        VoiceStateRequest: {
            /** Channel Id */
            channel_id: string | null;
            /**
             * Self Deaf
             * @default false
             */
            self_deaf: boolean;
            /**
             * Self Mute
             * @default false
             */
            self_mute: boolean;
        };
        /**
         * Warned
         * @description What is allowed and will not work as it looks. `path`: the key in cluster.yml.
         */
        Warned: {
            /** Path */
            path: string;
            /** Text */
            text: string;
        };
        /**
         * Webhook
         * @description A webhook. Of its URL only the host and the last four characters are shown.
         *
         *     missed          notices that were given up since its last message
         *     failing_since   Unix seconds since when messages do not arrive; 0: they do
         */
        Webhook: {
            /** Allow Private */
            allow_private: boolean;
            /** Apps */
            apps: string[];
            /** Created At */
            created_at: number;
            /** Ends In */
            ends_in: string;
            /** Error */
            error: string;
            /** Events */
            events: string[];
            /** Failing Since */
            failing_since: number;
            /** Host */
            host: string;
            /** Min Severity */
            min_severity: string;
            /** Missed */
            missed: number;
            /** Name */
            name: string;
            /** Revision */
            revision: number;
            /** Sent At */
            sent_at: number;
            /** Signed */
            signed: boolean;
            /** Template */
            template: string;
            /** Type */
            type: string;
        };
        /**
         * WebhookChange
         * @description What is to be different; what is left out stays. An empty `secret` removes it.
         */
        WebhookChange: {
            /**
             * Allow Private
             * @default null
             */
            allow_private: boolean | null;
            /**
             * Apps
             * @default null
             */
            apps: string[] | null;
            /**
             * Events
             * @default null
             */
            events: ("problems" | "budget" | "nodes" | "leader" | "apps" | "shards" | "failovers" | "losses")[] | null;
            /**
             * Min Severity
             * @default null
             */
            min_severity: ("critical" | "warning" | "notice") | null;
            /**
             * Secret
             * @default null
             */
            secret: string | null;
            /**
             * Template
             * @default null
             */
            template: string | null;
            /**
             * Url
             * @default null
             */
            url: string | null;
        };
        /**
         * WholeCluster
         * @description The cluster as stored, for `sandwich` of the same version. `v`: the version of its form.
         */
        WholeCluster: {
            /** Cluster */
            cluster: string;
            /** Revision */
            revision: number;
            /** V */
            v: number;
        } & {
            [key: string]: unknown;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
