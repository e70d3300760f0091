//! Shards of one bot to JetStream, in the frames of docs/design/wire.md: guarded, one append in flight a shard, zstd.
//!
//! The floor that `python -m benchmarks.steady` compares Sandwich with: one process, one thread, no cache, no filters,
//! no hand-over. Any fault ends it. Environment: PEER_TOKEN, PEER_GATEWAY (ws://...), PEER_SHARDS, PEER_NATS, PEER_APP,
//! PEER_BOT (its user id), PEER_TICK_MS (0: each event leaves at once). It prints `ready` once when each shard has its READY in the stream.

use std::{
    env,
    future::{Future, IntoFuture},
    pin::Pin,
    time::Duration,
};

use async_nats::{
    jetstream::{self, context::PublishError, publish::PublishAck},
    HeaderMap,
};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, Instant},
};
use twilight_gateway::{queue::InMemoryQueue, ConfigBuilder, Intents, Message, Shard, ShardId};
use twilight_model::gateway::event::GatewayEventDeserializer;

const BATCH_EVENTS_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
const COMPRESSION_LEVEL: i32 = 1;

type Fault = Box<dyn std::error::Error + Send + Sync>;
type Append = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// What every shard needs to know.
#[derive(Clone)]
struct Setting {
    app: String,
    bot: String,
    shards: u32,
    tick: Duration,
    began: Instant,
    stream: jetstream::Context,
}

/// Events of one shard that are not in the stream yet.
#[derive(Default)]
struct Buffer {
    lines: Vec<u8>,
    types: Vec<String>,
    first: u64,
    last: u64,
    count: usize,
}

impl Buffer {
    fn push(&mut self, line: &str, kind: &str, seq: u64, mark: &str, session: &str) {
        if self.count == 0 {
            self.first = seq;
        }
        self.last = seq;
        self.count += 1;
        if !self.types.iter().any(|known| known == kind) {
            self.types.push(kind.to_owned());
        }
        self.lines.extend_from_slice(&line.as_bytes()[..line.len() - 1]);
        self.lines.extend_from_slice(mark.as_bytes());
        self.lines.extend_from_slice(format!("\"{session}:{seq}\"}}}}\n").as_bytes());
    }

    fn is_full(&self) -> bool {
        self.count >= BATCH_EVENTS_MAX || self.lines.len() >= BATCH_BYTES_MAX
    }
}

/// One shard's chain of frames: each append asserts the sequence of the one before.
struct Chain {
    stream: jetstream::Context,
    subject: String,
    guard: String,
    last: u64,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Chain {
    fn headers(&self, session: &str, first: u64, last: u64, count: usize) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("Sandwich-Version", "1");
        headers.insert("Sandwich-Session", session);
        headers.insert("Sandwich-First-Seq", first.to_string().as_str());
        headers.insert("Sandwich-Last-Seq", last.to_string().as_str());
        headers.insert("Sandwich-Count", count.to_string().as_str());
        headers.insert("Sandwich-Epoch", "1");
        headers.insert("Nats-Expected-Last-Subject-Sequence", self.last.to_string().as_str());
        headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", self.guard.as_str());
        headers
    }

    async fn fence(&mut self) -> Result<(), Fault> {
        let mut headers = self.headers("", 0, 0, 0);
        headers.insert("Sandwich-Kind", "fence");
        let publish = self.stream.publish_with_headers(self.subject.clone(), headers, "".into());
        self.last = publish.await?.await?.sequence;
        Ok(())
    }

    async fn append(&mut self, session: &str, buffer: &mut Buffer) -> Result<Append, Fault> {
        let mut full = std::mem::take(buffer);
        full.types.sort_unstable();
        let mut headers = self.headers(session, full.first, full.last, full.count);
        headers.insert("Sandwich-Types", full.types.join(",").as_str());
        headers.insert("Content-Encoding", "zstd");
        headers.insert("Content-Type", "application/x-ndjson");
        let payload = self.compressor.compress(&full.lines)?;
        let publish = self.stream.publish_with_headers(self.subject.clone(), headers, payload.into());
        Ok(publish.await?.into_future())
    }
}

/// Read one shard and publish what it reads, for ever.
async fn run(setting: Setting, mut shard: Shard, ready: mpsc::UnboundedSender<()>) -> Result<(), Fault> {
    let mut ready = Some(ready);
    let (app, number) = (&setting.app, shard.id().number());
    let mut chain = Chain {
        stream: setting.stream.clone(),
        subject: format!("sandwich.{app}.events.all.0.{number}"),
        guard: format!("sandwich.{app}.events.*.0.{number}"),
        last: 0,
        compressor: zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?,
    };
    chain.fence().await?;
    let mark = format!(
        ",\"__sandwich\":{{\"v\":1,\"app\":\"{app}\",\"bot\":\"{}\",\"route\":\"{app}\",\"shard\":[0,{number},{}],\"id\":",
        setting.bot, setting.shards
    );
    let mut session = String::new();
    let mut buffer = Buffer::default();
    let mut in_flight: Option<Append> = None;
    let mut leaves_at = Instant::now();
    loop {
        tokio::select! {
            message = shard.next(), if !buffer.is_full() => {
                let text = match message {
                    Some(Ok(Message::Text(text))) => text,
                    Some(Err(error)) => return Err(error.into()),
                    Some(Ok(Message::Close(frame))) => return Err(format!("shard {number} was closed: {frame:?}").into()),
                    None => return Err(format!("shard {number} ended").into()),
                };
                let found = GatewayEventDeserializer::from_json(&text).ok_or("no opcode")?;
                let (Some(kind), Some(seq)) = (found.event_type(), found.sequence()) else { continue };
                if kind == "READY" {
                    let id = shard.session().ok_or("READY without a session")?.id().to_owned();
                    session = Sha256::digest(id).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
                }
                if buffer.count == 0 {
                    leaves_at = next_tick(&setting);
                }
                buffer.push(&text, kind, seq, &mark, &session);
            }
            stored = async { in_flight.as_mut().expect("guarded").await }, if in_flight.is_some() => {
                chain.last = stored?.sequence;
                in_flight = None;
                if let Some(first) = ready.take() {
                    first.send(()).ok();
                }
            }
            () = sleep_until(leaves_at), if in_flight.is_none() && buffer.count > 0 => {
                in_flight = Some(chain.append(&session, &mut buffer).await?);
            }
        }
    }
}

/// All shards publish at common moments, as a worker's do.
fn next_tick(setting: &Setting) -> Instant {
    let now = Instant::now();
    let tick = setting.tick.as_nanos();
    if tick == 0 {
        return now;
    }
    let past = (now - setting.began).as_nanos() % tick;
    now + Duration::from_nanos((tick - past) as u64)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Fault> {
    let shards: u32 = env::var("PEER_SHARDS")?.parse()?;
    let token = env::var("PEER_TOKEN")?;
    let setting = Setting {
        app: env::var("PEER_APP")?,
        bot: env::var("PEER_BOT")?,
        shards,
        tick: Duration::from_millis(env::var("PEER_TICK_MS")?.parse()?),
        began: Instant::now(),
        stream: jetstream::new(async_nats::connect(env::var("PEER_NATS")?).await?),
    };
    // 0: the simulator is told to take all IDENTIFYs at once.
    let queue = InMemoryQueue::new(0, shards, Duration::from_secs(60), shards);
    let config = ConfigBuilder::new(token, Intents::all()).proxy_url(env::var("PEER_GATEWAY")?).queue(queue).build();
    let (ready, mut started) = mpsc::unbounded_channel();
    let mut running = JoinSet::new();
    for number in 0..shards {
        let shard = Shard::with_config(ShardId::new(number, shards), config.clone());
        running.spawn(run(setting.clone(), shard, ready.clone()));
    }
    drop(ready);
    let mut left = shards;
    loop {
        tokio::select! {
            Some(()) = started.recv() => {
                left -= 1;
                if left == 0 {
                    println!("ready");
                }
            }
            Some(ended) = running.join_next() => return ended?,
        }
    }
}
