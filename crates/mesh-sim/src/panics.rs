//! Panics of the control plane are findings of the simulator, not its own: they are kept, not printed.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
    static QUIET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// What came of something that may panic.
pub(crate) enum Outcome<T> {
    /// It returned.
    Returned(T),
    /// It was unwound by a payload of this type, on purpose.
    Unwound,
    /// It panicked, and said this.
    Panicked(String),
}

/// Runs something, and catches it when it panics. `P` is what unwinds it on purpose.
pub(crate) fn watch<P: 'static, T>(run: impl FnOnce() -> T) -> Outcome<T> {
    install();
    QUIET.with(|quiet| quiet.set(true));
    let caught = catch_unwind(AssertUnwindSafe(run));
    QUIET.with(|quiet| quiet.set(false));
    match caught {
        Ok(value) => Outcome::Returned(value),
        Err(payload) if payload.is::<P>() => Outcome::Unwound,
        Err(_) => Outcome::Panicked(LAST.with(RefCell::take).unwrap_or_default()),
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if QUIET.with(std::cell::Cell::get) {
                LAST.with(|last| last.replace(Some(info.to_string())));
            } else {
                before(info);
            }
        }));
    });
}
