//! The real-time clock and its memory (Motorola MC146818), showing the host's time in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const SIZE: usize = 128;
/// The index register's top bit masks the non-maskable interrupt; it is no part of the index.
const INDEX_MASK: u8 = 0x7f;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

/// The divider chain runs at 32768 Hz; no update is ever in progress.
const STATUS_A_VALUE: u8 = 0x26;
const STATUS_B_24_HOURS: u8 = 1 << 1;
const STATUS_B_BINARY: u8 = 1 << 2;
const STATUS_D_VALID: u8 = 1 << 7;

/// State of the clock: what the guest wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CmosState {
    /// The index register.
    pub index: u8,
    /// Memory, and the registers that can be written; always 128 bytes.
    pub memory: Vec<u8>,
}

impl Default for CmosState {
    fn default() -> Self {
        let mut memory = vec![0; SIZE];
        if let Some(status) = memory.get_mut(usize::from(STATUS_B)) {
            *status = STATUS_B_24_HOURS;
        }
        Self { index: 0, memory }
    }
}

/// The clock.
#[derive(Debug, Default)]
pub(super) struct Cmos {
    state: CmosState,
}

impl Cmos {
    pub(super) fn select(&mut self, index: u8) {
        self.state.index = index & INDEX_MASK;
    }

    pub(super) fn write(&mut self, value: u8) {
        // The time is the host's: a guest that sets it is not followed.
        let fixed = [STATUS_A, STATUS_C, STATUS_D, CENTURY];
        let index = self.state.index;
        if index > YEAR
            && !fixed.contains(&index)
            && let Some(byte) = self.state.memory.get_mut(usize::from(index))
        {
            *byte = value;
        }
    }

    pub(super) fn read(&self) -> u8 {
        self.read_at(SystemTime::now())
    }

    fn read_at(&self, now: SystemTime) -> u8 {
        let stored =
            |index: u8| self.state.memory.get(usize::from(index)).copied().unwrap_or_default();
        let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let date = Date::from_unix(seconds);
        let number = match self.state.index {
            SECONDS => seconds % 60,
            MINUTES => seconds / 60 % 60,
            HOURS => return self.encode_hour(seconds / 3600 % 24),
            // 1970 began on a Thursday, the fifth day.
            DAY_OF_WEEK => (seconds / 86400 + 4) % 7 + 1,
            DAY_OF_MONTH => date.day,
            MONTH => date.month,
            YEAR => date.year % 100,
            CENTURY => date.year / 100,
            STATUS_A => return STATUS_A_VALUE,
            // No interrupt is ever pending.
            STATUS_C => return 0,
            STATUS_D => return STATUS_D_VALID,
            other => return stored(other),
        };
        self.encode(number)
    }

    fn status_b(&self) -> u8 {
        self.state.memory.get(usize::from(STATUS_B)).copied().unwrap_or_default()
    }

    /// A number below 100, in binary or binary-coded decimal as the guest chose.
    fn encode(&self, number: u64) -> u8 {
        let number = u8::try_from(number % 100).unwrap_or_default();
        if self.status_b() & STATUS_B_BINARY != 0 {
            number
        } else {
            (number / 10) << 4 | (number % 10)
        }
    }

    fn encode_hour(&self, hour: u64) -> u8 {
        if self.status_b() & STATUS_B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { 0x80 } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    pub(super) fn save(&self) -> CmosState {
        self.state.clone()
    }

    pub(super) fn restore(&mut self, state: &CmosState) {
        self.state.clone_from(state);
        self.state.memory.resize(SIZE, 0);
    }
}

/// A date of the Gregorian calendar.
struct Date {
    year: u64,
    month: u64,
    day: u64,
}

impl Date {
    /// The date of a second since 1970. Years are counted from March, so that the leap day is
    /// their last.
    fn from_unix(seconds: u64) -> Self {
        const DAYS_IN_400_YEARS: u64 = 146_097;
        // From 1 March of the year 0 to 1970.
        let days = seconds / 86400 + 719_468;
        let era = days / DAYS_IN_400_YEARS;
        let day_of_era = days % DAYS_IN_400_YEARS;
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = (from_march + 2) % 12 + 1;
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        Self { year, month, day: day_of_year - (153 * from_march + 2) / 5 + 1 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn read(cmos: &mut Cmos, seconds: u64, index: u8) -> u8 {
        cmos.select(index | 0x80);
        cmos.read_at(UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn time_is_shown_in_decimal_or_binary() {
        let mut cmos = Cmos::default();
        // 2024-02-29 23:59:58 UTC, a Thursday.
        let time = 1_709_251_198;
        let fields = [SECONDS, MINUTES, HOURS, DAY_OF_WEEK, DAY_OF_MONTH, MONTH, YEAR, CENTURY];
        let decimal = fields.map(|index| read(&mut cmos, time, index));
        assert_eq!(decimal, [0x58, 0x59, 0x23, 0x05, 0x29, 0x02, 0x24, 0x20]);
        cmos.select(STATUS_B);
        cmos.write(STATUS_B_BINARY);
        let binary = fields.map(|index| read(&mut cmos, time, index));
        assert_eq!(binary, [58, 59, 0x8b, 5, 29, 2, 24, 20]);
    }

    #[test]
    fn dates_around_leap_years_are_right() {
        for (seconds, expected) in [
            (0, (1970, 1, 1)),
            (951_782_400, (2000, 2, 29)),
            (951_868_800, (2000, 3, 1)),
            (4_107_542_400, (2100, 3, 1)),
            (1_735_689_599, (2024, 12, 31)),
        ] {
            let date = Date::from_unix(seconds);
            assert_eq!((date.year, date.month, date.day), expected);
        }
    }

    #[test]
    fn registers_are_sane_and_memory_is_kept() {
        let mut cmos = Cmos::default();
        assert_eq!(read(&mut cmos, 0, STATUS_A) & 0x80, 0);
        assert_eq!(read(&mut cmos, 0, STATUS_D), STATUS_D_VALID);
        cmos.select(0x40);
        cmos.write(7);
        let state = cmos.save();
        cmos.write(8);
        cmos.restore(&state);
        assert_eq!(cmos.read(), 7);
    }
}
