//! Quantities of resources, exact to a ten-thousandth, with arithmetic that cannot wrap.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::ResourceName;

/// A quantity of one resource, counted in ten-thousandths of its unit.
///
/// Ray counts in the same steps, so that 0.1 + 0.2 CPU, taken three times, returns to zero on both
/// sides. Units: `CPU` cores, `GPU` devices, `memory` bytes, custom resources as their owner says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(u64);

/// Why a number is not an [`Amount`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// NaN or infinite.
    #[error("is not a finite number")]
    NotFinite,
    /// Below zero.
    #[error("is negative")]
    Negative,
    /// Above what 64 bits of ten-thousandths hold.
    #[error("is larger than {}", Amount::MAX)]
    TooLarge,
    /// Not zero, yet rounds to zero ten-thousandths.
    #[error("is smaller than 0.0001")]
    TooSmall,
}

impl Amount {
    /// Steps in one unit.
    const SCALE: u32 = 10_000;
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// The largest amount: 2^53 steps, so that a float holds every amount exactly.
    pub const MAX: Self = Self(1 << 53);

    /// From ten-thousandths of a unit.
    pub const fn from_steps(steps: u64) -> Self {
        Self(steps)
    }

    /// In ten-thousandths of a unit.
    pub const fn steps(self) -> u64 {
        self.0
    }

    /// From whole units.
    pub fn whole(units: u32) -> Self {
        Self(u64::from(units) * u64::from(Self::SCALE))
    }

    /// From a number of units, rounded to the nearest ten-thousandth.
    pub fn from_units(units: f64) -> Result<Self, AmountError> {
        if !units.is_finite() {
            return Err(AmountError::NotFinite);
        }
        if units < 0.0 {
            return Err(AmountError::Negative);
        }
        let steps = (units * f64::from(Self::SCALE)).round();
        if steps > Self::MAX.to_f64() {
            return Err(AmountError::TooLarge);
        }
        if steps < 1.0 && units > 0.0 {
            return Err(AmountError::TooSmall);
        }
        #[expect(
            clippy::as_conversions,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked above: a whole number between 0 and 2^53"
        )]
        Ok(Self(steps as u64))
    }

    /// As a number of units: for scores and for people, never to count with.
    pub fn units(self) -> f64 {
        self.to_f64() / f64::from(Self::SCALE)
    }

    #[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "ranks, never counts")]
    fn to_f64(self) -> f64 {
        self.0 as f64
    }

    /// Whether this is nothing.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, stopping at the largest amount that can be held.
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// What is left after `other` is taken away, and zero when that is more than there is.
    pub const fn minus_or_zero(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = u64::from(Self::SCALE);
        let (whole, part) = (self.0 / scale, self.0 % scale);
        if part == 0 {
            return write!(out, "{whole}");
        }
        let digits = format!("{part:04}");
        write!(out, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

/// A vector of resources: what a node has, or what a task asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Resources {
    /// Cores.
    pub cpu: Amount,
    /// Devices.
    pub gpu: Amount,
    /// Bytes.
    pub memory: Amount,
    /// Resources that the cluster's owner named; never holds a zero.
    pub custom: BTreeMap<ResourceName, Amount>,
}

impl Resources {
    /// Nothing of anything.
    pub const NONE: Self = Self {
        cpu: Amount::ZERO,
        gpu: Amount::ZERO,
        memory: Amount::ZERO,
        custom: BTreeMap::new(),
    };

    /// So many cores and nothing else.
    pub fn cpus(cpu: Amount) -> Self {
        Self { cpu, ..Self::NONE }
    }

    /// Whether every amount is zero.
    pub fn is_none(&self) -> bool {
        self.cpu.is_zero()
            && self.gpu.is_zero()
            && self.memory.is_zero()
            && self.custom.values().all(|amount| amount.is_zero())
    }

    /// The amount of a custom resource, zero when it is not named.
    pub fn custom(&self, name: &ResourceName) -> Amount {
        self.custom.get(name).copied().unwrap_or(Amount::ZERO)
    }

    /// Whether `ask` can be taken out of this.
    pub fn covers(&self, ask: &Self) -> bool {
        ask.cpu <= self.cpu
            && ask.gpu <= self.gpu
            && ask.memory <= self.memory
            && ask.custom.iter().all(|(name, amount)| *amount <= self.custom(name))
    }

    /// What is missing here for `ask`, or `None` when nothing is.
    pub fn shortfall(&self, ask: &Self) -> Option<Shortfall> {
        let missing = ask.minus_or_zero(self);
        (!missing.is_none()).then_some(Shortfall { missing })
    }

    /// Takes `ask` out of this, or reports what is missing and changes nothing.
    pub fn take(&mut self, ask: &Self) -> Result<(), Shortfall> {
        if let Some(short) = self.shortfall(ask) {
            return Err(short);
        }
        *self = self.minus_or_zero(ask);
        Ok(())
    }

    /// Puts `amounts` in.
    pub fn put(&mut self, amounts: &Self) {
        self.cpu = self.cpu.plus(amounts.cpu);
        self.gpu = self.gpu.plus(amounts.gpu);
        self.memory = self.memory.plus(amounts.memory);
        for (name, amount) in &amounts.custom {
            let entry = self.custom.entry(name.clone()).or_default();
            *entry = entry.plus(*amount);
        }
        self.custom.retain(|_, amount| !amount.is_zero());
    }

    /// Component by component, what is left after `other`, never below zero.
    pub fn minus_or_zero(&self, other: &Self) -> Self {
        let mut custom = BTreeMap::new();
        for (name, amount) in &self.custom {
            let left = amount.minus_or_zero(other.custom(name));
            if !left.is_zero() {
                custom.insert(name.clone(), left);
            }
        }
        Self {
            cpu: self.cpu.minus_or_zero(other.cpu),
            gpu: self.gpu.minus_or_zero(other.gpu),
            memory: self.memory.minus_or_zero(other.memory),
            custom,
        }
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = [("CPU", self.cpu), ("GPU", self.gpu), ("memory", self.memory)];
        let mut first = true;
        let custom = self.custom.iter().map(|(name, amount)| (name.as_str(), *amount));
        for (name, amount) in named.into_iter().chain(custom) {
            if amount.is_zero() {
                continue;
            }
            let gap = if first { "" } else { " " };
            match name {
                "memory" => write!(out, "{gap}memory={}", Bytes(amount))?,
                name => write!(out, "{gap}{name}={amount}")?,
            }
            first = false;
        }
        if first { out.write_str("nothing") } else { Ok(()) }
    }
}

/// An amount of memory, for people.
struct Bytes(Amount);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        let mut size = self.0.units();
        if size < 1024.0 {
            return write!(out, "{} B", self.0);
        }
        let mut unit = "B";
        for next in UNITS {
            if size < 1024.0 {
                break;
            }
            size /= 1024.0;
            unit = next;
        }
        // Two digits are enough to compare by, and whole numbers need none.
        let digits = if size.fract() < 0.005 { 0 } else { 2 };
        write!(out, "{size:.digits$} {unit}")
    }
}

/// What a request lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// The missing part of the request.
    pub missing: Resources,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} short", self.missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_and_two_tenths_three_times_return_to_zero() {
        let tenth = Amount::from_units(0.1).unwrap();
        let fifth = Amount::from_units(0.2).unwrap();
        let mut room = Resources::cpus(Amount::from_units(0.9).unwrap());
        for _ in 0..3 {
            room.take(&Resources::cpus(tenth)).unwrap();
            room.take(&Resources::cpus(fifth)).unwrap();
        }
        assert!(room.is_none(), "{room} left");
    }

    #[test]
    fn four_agents_of_a_tenth_fit_in_four_tenths() {
        let tenth = Resources::cpus(Amount::from_units(0.1).unwrap());
        let mut room = Resources::cpus(Amount::from_units(0.4).unwrap());
        let fitting = std::iter::repeat_with(|| room.take(&tenth)).take_while(Result::is_ok);
        assert_eq!(fitting.count(), 4);
    }

    #[test]
    fn what_is_short_changes_nothing() {
        let mut room = Resources::cpus(Amount::whole(1));
        let ask = Resources { gpu: Amount::whole(2), ..Resources::cpus(Amount::whole(1)) };
        assert_eq!(room.take(&ask).unwrap_err().to_string(), "GPU=2 short");
        assert_eq!(room.to_string(), "CPU=1");
    }

    #[test]
    fn memory_is_shown_in_the_units_of_people() {
        let shown = |bytes: f64| {
            let memory = Amount::from_units(bytes).unwrap();
            Resources { memory, ..Resources::NONE }.to_string()
        };
        assert_eq!(shown(512.0), "memory=512 B");
        assert_eq!(shown(4096.0), "memory=4 KiB");
        assert_eq!(shown(21_870_178_048.0), "memory=20.37 GiB");
    }

    #[test]
    fn numbers_that_are_no_amounts_say_why() {
        let why = |units| Amount::from_units(units).unwrap_err().to_string();
        assert_eq!(why(f64::NAN), "is not a finite number");
        assert_eq!(why(-1.0), "is negative");
        assert_eq!(why(1e18), "is larger than 900719925474.0992");
        assert_eq!(why(0.000_01), "is smaller than 0.0001");
    }
}
