use std::time::Duration;

/// How a controller is driven. The defaults are SPDK's where it has one (`bdev_nvme_set_options`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// For each administrative command.
    pub admin_timeout: Duration,
    /// Before a request on an I/O queue is aborted.
    pub io_timeout: Duration,
    /// For the abort to help, before the controller is reset.
    pub abort_grace: Duration,
    /// How often a request is sent once more after a controller was reset under it.
    pub retries: u8,
    /// Controller resets in a row (none of which lasted for `io_timeout`) before the controller is given up.
    pub resets: u32,
    /// Entries of an I/O queue, at most what the controller has.
    pub queue_entries: u16,
    /// I/O queues to ask for: one is needed for every channel.
    pub io_queues: u16,
    /// At most this long for CSTS.RDY, whatever CAP.TO says. (It can say 127.5 s.)
    pub ready_limit: Duration,
    /// For the controller to write back its caches (SPDK waits as long), unless RTD3E asks for more.
    pub shutdown: Duration,
    /// The clock of time-outs: how often the supervisor looks at its controller.
    pub tick: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            admin_timeout: Duration::from_secs(10),
            io_timeout: Duration::from_secs(30),
            abort_grace: Duration::from_secs(5),
            retries: 1,
            resets: 3,
            queue_entries: 512,
            io_queues: 64,
            ready_limit: Duration::from_secs(130),
            shutdown: Duration::from_secs(10),
            tick: Duration::from_secs(1),
        }
    }
}

impl Options {
    /// A time in ticks, at least two, since the first one may be nearly over.
    pub(crate) fn ticks(&self, time: Duration) -> u32 {
        let ticks = time.as_nanos().div_ceil(self.tick.as_nanos().max(1));
        u32::try_from(ticks).unwrap_or(u32::MAX / 2).saturating_add(1)
    }
}
