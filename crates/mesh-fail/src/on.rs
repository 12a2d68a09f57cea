//! The failpoints of a build that has them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::plan::{Action, Fault, Order, orders};
use crate::{COUNTS_VARIABLE, ORDERS_VARIABLE, POINTS};

static STATE: LazyLock<State> = LazyLock::new(State::of_process);

/// What was ordered, and what has happened since.
struct State {
    orders: Vec<Order>,
    counts: Vec<Count>,
    file: Option<File>,
}

/// The passes of one failpoint.
#[derive(Default)]
struct Count {
    /// By processes before this one.
    before: u64,
    here: AtomicU64,
}

impl State {
    #[expect(clippy::panic, reason = "a test that orders what there is not must be told")]
    #[expect(clippy::disallowed_methods, reason = "a crash loop is no setting of the server")]
    fn of_process() -> Self {
        let text = std::env::var(ORDERS_VARIABLE).unwrap_or_default();
        let orders = orders(&text).unwrap_or_else(|wrong| panic!("{ORDERS_VARIABLE}: {wrong}"));
        let file = std::env::var_os(COUNTS_VARIABLE).and_then(|path| {
            OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).ok()
        });
        let counts = (0..).zip(POINTS).map(|(index, _point)| {
            let mut bytes = [0; 8];
            let read = file.as_ref().map(|file| file.read_exact_at(&mut bytes, index * 8));
            let before = if matches!(read, Some(Ok(()))) { u64::from_le_bytes(bytes) } else { 0 };
            Count { before, here: AtomicU64::new(0) }
        });
        Self { counts: counts.collect(), orders, file }
    }
}

/// Counts the pass, and does what was ordered.
pub(crate) fn pass(point: &'static str) -> io::Result<()> {
    let state = &*STATE;
    let index = POINTS.iter().position(|known| *known == point);
    let Some((index, count)) = index.and_then(|index| Some((index, state.counts.get(index)?)))
    else {
        return Err(io::Error::other(format!("{point} is not among the declared failpoints")));
    };
    let nth = count.here.fetch_add(1, Ordering::Relaxed) + 1;
    if let Some(file) = &state.file {
        let place = u64::try_from(index).unwrap_or(u64::MAX).saturating_mul(8);
        // What cannot be counted is not reached, as far as the report goes.
        drop(file.write_all_at(&(count.before + nth).to_le_bytes(), place));
    }
    for order in state.orders.iter().filter(|order| order.point == index) {
        obey(order.action, nth)?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a slow disk is what is played here")]
fn obey(action: Action, nth: u64) -> io::Result<()> {
    match action {
        Action::Kill(at) if nth == at => kill(),
        Action::Pause(millis) => std::thread::sleep(Duration::from_millis(millis)),
        Action::Fail(fault, from, times) if nth >= from && nth - from < times => {
            let code = match fault {
                Fault::Full => libc::ENOSPC,
                Fault::Broken => libc::EIO,
            };
            return Err(io::Error::from_raw_os_error(code));
        }
        Action::Kill(_) | Action::Fail(..) => {}
    }
    Ok(())
}

/// Ends the process as `kill -9` from outside does: nothing is flushed, no destructor runs.
#[expect(unsafe_code, reason = "sending a signal has no safe call in std")]
fn kill() {
    // SAFETY: sending a signal to oneself touches no memory.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
    // The signal is on its way; nothing more may happen on this thread.
    loop {
        std::thread::park();
    }
}
