//! Parts of a log on disk by time.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use rayon::prelude::*;

use super::DiskLog;
use crate::error::Result;
use crate::pairs::timeline::View;

/// Buckets that times are counted in: 2¹⁶, so that two passes find the one of a place among times that lie
/// within 136 years.
const BUCKET_BITS: u32 = if cfg!(test) { 2 } else { 16 };

/// Times from the first on and before the second; without a second, all from the first on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The earliest, in seconds.
    pub from: i64,
    /// The earliest after it.
    pub to: Option<i64>,
}

impl Span {
    /// All times.
    pub const ALL: Self = Self {
        from: i64::MIN,
        to: None,
    };

    /// Whether a time is one of them.
    pub fn contains(&self, time: i64) -> bool {
        time >= self.from && self.to.is_none_or(|to| time < to)
    }

    /// Those of a user's views, ascending by time.
    pub(super) fn of<'a>(&self, views: &'a [View]) -> &'a [View] {
        let start = views.partition_point(|view| view.time < self.from);
        let end = self.to.map_or(views.len(), |to| {
            views.partition_point(|view| view.time < to)
        });
        &views[start..end.max(start)]
    }
}

impl DiskLog {
    /// The time at a place of the events' times in their order, and how many events are earlier; the place is
    /// that of an event.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn time_at(&self, place: u64) -> Result<(i64, u64)> {
        let (mut low, mut high) = self.first_and_last()?;
        let mut before = 0;
        while low < high {
            // Of the times from `low` to `high` each bucket has 2^shift.
            let bits = 64 - high.abs_diff(low).leading_zeros();
            let shift = bits.saturating_sub(BUCKET_BITS);
            let counts = self.count(low, high, shift)?;
            let (mut bucket, mut sum) = (0, before);
            while sum + counts[bucket] <= place {
                sum += counts[bucket];
                bucket += 1;
            }
            before = sum;
            low = low.wrapping_add_unsigned((bucket as u64) << shift);
            let last = low.checked_add_unsigned((1 << shift) - 1);
            high = high.min(last.unwrap_or(high));
        }
        Ok((low, before))
    }

    /// Times of the first and the last event; 0 where there is none.
    fn first_and_last(&self) -> Result<(i64, i64)> {
        let (first, last) = (AtomicI64::new(i64::MAX), AtomicI64::new(i64::MIN));
        self.parts.par_iter().try_for_each(|part| {
            part.each_user(|_, views| {
                if let (Some(one), Some(other)) = (views.first(), views.last()) {
                    first.fetch_min(one.time, Ordering::Relaxed);
                    last.fetch_max(other.time, Ordering::Relaxed);
                }
            })
        })?;
        let (first, last) = (first.into_inner(), last.into_inner());
        Ok(if first <= last { (first, last) } else { (0, 0) })
    }

    /// How many events there are in each of the stretches of 2^shift times from `low` to `high`.
    fn count(&self, low: i64, high: i64, shift: u32) -> Result<Vec<u64>> {
        let buckets = (high.abs_diff(low) >> shift) as usize + 1;
        let counts: Vec<AtomicU64> = (0..buckets).map(|_| AtomicU64::new(0)).collect();
        self.parts.par_iter().try_for_each(|part| {
            let mut own = vec![0_u64; buckets];
            part.each_user(|_, views| {
                for view in views
                    .iter()
                    .filter(|view| (low..=high).contains(&view.time))
                {
                    own[(view.time.abs_diff(low) >> shift) as usize] += 1;
                }
            })?;
            for (count, own) in counts.iter().zip(own) {
                count.fetch_add(own, Ordering::Relaxed);
            }
            Ok::<_, crate::error::DataError>(())
        })?;
        Ok(counts.into_iter().map(AtomicU64::into_inner).collect())
    }

    /// Distinct users of each note, by the events of some times.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(crate) fn note_users_within(&self, span: Span) -> Result<Vec<u32>> {
        let users: Vec<AtomicU32> = self.by_rank.iter().map(|_| AtomicU32::new(0)).collect();
        self.parts.par_iter().try_for_each(|part| {
            let mut notes = Vec::new();
            part.each_user(|_, views| {
                notes.clear();
                notes.extend(span.of(views).iter().map(|view| view.note));
                notes.sort_unstable();
                notes.dedup();
                for &rank in &notes {
                    users[self.by_rank[rank as usize] as usize].fetch_add(1, Ordering::Relaxed);
                }
            })
        })?;
        Ok(users.into_iter().map(AtomicU32::into_inner).collect())
    }
}
