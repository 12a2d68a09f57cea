//! What is to happen at which failpoint, and how one says it.

use std::fmt;

use crate::POINTS;

/// What happens at a failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `kill(N)`: the process kills itself with SIGKILL the `N`th time.
    Kill(u64),
    /// `pause(MS)`: it sleeps so long, each time.
    Pause(u64),
    /// `full(N)` or `full(N,TIMES)`: no space is left, from the `N`th time on, so many times.
    /// `broken(N)`, `broken(N,TIMES)`: the same with an input/output error.
    Fail(Fault, u64, u64),
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC.
    Full,
    /// EIO.
    Broken,
}

/// What happens at one failpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Its index in [`POINTS`].
    pub point: usize,
    /// What.
    pub action: Action,
}

impl fmt::Display for Order {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}=", POINTS.get(self.point).copied().unwrap_or("?"))?;
        match self.action {
            Action::Kill(nth) => write!(out, "kill({nth})"),
            Action::Pause(millis) => write!(out, "pause({millis})"),
            Action::Fail(Fault::Full, nth, times) => write!(out, "full({nth},{times})"),
            Action::Fail(Fault::Broken, nth, times) => write!(out, "broken({nth},{times})"),
        }
    }
}

/// Reads orders, separated by semicolons.
pub fn orders(text: &str) -> Result<Vec<Order>, String> {
    text.split(';').map(str::trim).filter(|part| !part.is_empty()).map(order).collect()
}

fn order(text: &str) -> Result<Order, String> {
    let wrong = || format!("{text:?} is not like store.append.begin=kill(7)");
    let (name, action) = text.split_once('=').ok_or_else(wrong)?;
    let point = POINTS.iter().position(|point| *point == name);
    let point = point.ok_or_else(|| format!("there is no failpoint {name:?}"))?;
    let (verb, numbers) =
        action.strip_suffix(')').and_then(|action| action.split_once('(')).ok_or_else(wrong)?;
    let numbers: Result<Vec<u64>, _> = numbers.split(',').map(|part| part.trim().parse()).collect();
    let numbers = numbers.map_err(|_not_a_number| wrong())?;
    let action = match (verb, numbers.as_slice()) {
        ("kill", [nth]) => Action::Kill(*nth),
        ("pause", [millis]) => Action::Pause(*millis),
        ("full", [nth]) => Action::Fail(Fault::Full, *nth, 1),
        ("full", [nth, times]) => Action::Fail(Fault::Full, *nth, *times),
        ("broken", [nth]) => Action::Fail(Fault::Broken, *nth, 1),
        ("broken", [nth, times]) => Action::Fail(Fault::Broken, *nth, *times),
        _ => return Err(wrong()),
    };
    Ok(Order { point, action })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_as_they_are_written() {
        let text = "store.append.begin=kill(7);blob.write=pause(20);blob.before_sync=full(3,2)";
        let read = orders(text).unwrap();
        let again: Vec<_> = read.iter().map(Order::to_string).collect();
        assert_eq!(again.join(";"), text);
        assert_eq!(
            orders("blob.write=broken(1)").unwrap()[0].action,
            Action::Fail(Fault::Broken, 1, 1)
        );
        assert_eq!(orders(" ; ").unwrap(), []);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert!(orders("nowhere=kill(1)").unwrap_err().contains("no failpoint \"nowhere\""));
        for text in ["blob.write", "blob.write=kill", "blob.write=kill(x)", "blob.write=jump(1)"] {
            assert!(orders(text).unwrap_err().contains("is not like"), "{text}");
        }
    }

    #[test]
    fn every_point_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = POINTS.iter().collect();
        assert_eq!(names.len(), POINTS.len());
    }
}
