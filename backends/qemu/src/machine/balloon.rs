//! The balloon, which is QEMU's device.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;
use vmoon_core::backend::{BalloonLevel, BalloonStatistics};
use vmoon_core::{Bytes, Result};

use super::actor::Actor;
use super::command::Reply;
use crate::error::cannot;

/// QEMU tells of a balloon's changes once a second at most. For this long after a new target the
/// machine looks by itself, more and more seldom.
const WATCHED: Duration = Duration::from_secs(2);
const FIRST_LOOK: Duration = Duration::from_millis(2);
const SLOWEST_LOOK: Duration = Duration::from_millis(50);

/// Where QEMU keeps the device's properties.
const DEVICE: &str = "/machine/peripheral/balloon";

/// What is known of the balloon.
#[derive(Debug)]
pub(super) struct Balloon {
    level: watch::Sender<BalloonLevel>,
    /// Until when the balloon is on its way to a new target.
    moving: Option<Instant>,
    waiting: Vec<Waiting>,
    look: Option<Instant>,
    pause: Duration,
}

/// Who waits for statistics that the guest reports in this second or a later one.
#[derive(Debug)]
struct Waiting {
    since: u64,
    reply: Reply<BalloonStatistics>,
}

impl Balloon {
    pub(super) fn new(memory: Bytes) -> Self {
        let level = watch::Sender::new(BalloonLevel { target: memory, actual: memory });
        let (moving, look, pause) = (None, None, FIRST_LOOK);
        Self { level, moving, waiting: Vec::new(), look, pause }
    }

    pub(super) fn watch(&self) -> watch::Receiver<BalloonLevel> {
        self.level.subscribe()
    }

    pub(super) fn level(&self) -> BalloonLevel {
        *self.level.borrow()
    }

    /// Goes back to a snapshot's level. What was asked before is forgotten.
    pub(super) fn restore(&mut self, level: BalloonLevel) {
        self.level.send_replace(level);
        self.moving = None;
        self.look = None;
        self.waiting.clear();
    }

    /// When to look at it, if at all.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look
    }

    fn look_soon(&mut self) {
        self.pause = FIRST_LOOK;
        self.look = Some(Instant::now() + self.pause);
    }

    fn look_later(&mut self) {
        self.pause = (self.pause * 2).min(SLOWEST_LOOK);
        self.look = Some(Instant::now() + self.pause);
    }

    /// Takes on what QEMU answers.
    fn hear(&self, answer: &Value) {
        let Some(actual) = answer["actual"].as_u64().map(Bytes) else { return };
        self.level.send_if_modified(|level| {
            let changed = level.actual != actual;
            level.actual = actual;
            changed
        });
    }

    fn has_arrived(&self) -> bool {
        let level = self.level();
        level.actual.get().abs_diff(level.target.get()) < Bytes::PAGE.get()
    }
}

impl Actor {
    pub(super) fn set_balloon(&mut self, target: Bytes) -> Result<()> {
        // Whole pages are moved.
        let left = target.get().next_multiple_of(Bytes::PAGE.get()).min(self.plan.memory);
        self.ask_with("balloon", &json!({ "value": left }))?;
        self.balloon.level.send_modify(|level| level.target = Bytes(left));
        self.balloon.moving = Some(Instant::now() + WATCHED);
        self.balloon.look_soon();
        Ok(())
    }

    /// QEMU says that the balloon has changed. It holds that back for up to a second, so it may tell
    /// of what was before a restore: what is true now is asked for.
    pub(super) fn balloon_changed(&mut self) {
        let now = Instant::now();
        self.balloon.moving.get_or_insert(now);
        self.balloon.look = Some(now);
    }

    /// Has the guest asked for its figures.
    pub(super) fn ask_statistics(&mut self, reply: Reply<BalloonStatistics>) {
        match self.request_statistics() {
            Ok(since) => {
                self.balloon.waiting.push(Waiting { since, reply });
                self.balloon.look_soon();
            }
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    /// The first second whose report is an answer: QEMU notes seconds, and one that has its report
    /// already may get no other.
    fn request_statistics(&mut self) -> Result<u64> {
        let reported = self.statistics()?.1;
        for interval in [0, 1] {
            self.set_statistics_interval(interval)?;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(if reported == now { now + 1 } else { now })
    }

    fn set_statistics_interval(&mut self, seconds: u32) -> Result<()> {
        let property = "guest-stats-polling-interval";
        let arguments = json!({ "path": DEVICE, "property": property, "value": seconds });
        self.ask_with("qom-set", &arguments).map(drop)
    }

    /// The last report, and the second in which it came.
    fn statistics(&mut self) -> Result<(BalloonStatistics, u64)> {
        let arguments = json!({ "path": DEVICE, "property": "guest-stats" });
        let report = self.ask_with("qom-get", &arguments)?;
        // What the guest does not report is all ones.
        let figure = |name: &str| report["stats"][name].as_u64().filter(|it| *it != u64::MAX);
        let host_rss = self.ram.resident();
        let host_rss = host_rss.map_err(|error| cannot("look at the machine's memory", error))?;
        let statistics = BalloonStatistics {
            swap_in: figure("stat-swap-in"),
            swap_out: figure("stat-swap-out"),
            major_faults: figure("stat-major-faults"),
            minor_faults: figure("stat-minor-faults"),
            free_memory: figure("stat-free-memory"),
            total_memory: figure("stat-total-memory"),
            available_memory: figure("stat-available-memory"),
            disk_caches: figure("stat-disk-caches"),
            hugetlb_allocations: figure("stat-htlb-pgalloc"),
            hugetlb_failures: figure("stat-htlb-pgfail"),
            host_rss: host_rss.get(),
        };
        Ok((statistics, report["last-update"].as_u64().unwrap_or(0)))
    }

    pub(super) fn look_at_balloon(&mut self) {
        self.balloon.look = None;
        self.balloon.waiting.retain(|waiting| !waiting.reply.is_closed());
        if self.balloon.moving.is_some() {
            if let Ok(level) = self.ask("query-balloon") {
                self.balloon.hear(&level);
            }
            if self.balloon.has_arrived() {
                self.balloon.moving = None;
            }
            self.balloon.moving = self.balloon.moving.filter(|until| Instant::now() < *until);
        }
        if !self.balloon.waiting.is_empty() {
            self.answer_statistics();
        }
        if self.balloon.moving.is_some() || !self.balloon.waiting.is_empty() {
            self.balloon.look_later();
        }
    }

    fn answer_statistics(&mut self) {
        let (statistics, reported) = match self.statistics() {
            Ok(found) => found,
            Err(error) => {
                for waiting in self.balloon.waiting.drain(..) {
                    let _ = waiting.reply.send(Err(error.clone()));
                }
                return;
            }
        };
        let waiting = std::mem::take(&mut self.balloon.waiting);
        for waiting in waiting {
            if reported >= waiting.since {
                let _ = waiting.reply.send(Ok(statistics));
            } else {
                self.balloon.waiting.push(waiting);
            }
        }
        if self.balloon.waiting.is_empty()
            && let Err(error) = self.set_statistics_interval(0)
        {
            tracing::debug!(%error, "the guest goes on reporting");
        }
    }
}
